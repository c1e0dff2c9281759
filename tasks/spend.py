"""What an attempt used of models, and what it cost, as it travels from a node to the ledger.

Owns the words, and the bounds that every number keeps. Refuses to know prices: a node's sidecars do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MODEL_MAX_CHARS = 128
MODELS_MAX = 20
"""Of one attempt; what else it asked counts under `OTHERS`: an agent may ask for any name."""
OTHERS = "others"
UNNAMED = "unknown"
TOKENS_MAX = 10**15
"""No attempt uses as many, and both databases and JSON keep a sum of such numbers exactly."""
COST_MAX_USD = 1e12
FIELDS = 8
"""Of `Spend`, in the order in which they travel."""


@dataclass(frozen=True, slots=True)
class Spend:
    """What one attempt used of one model, so far or in all."""

    model: str
    requests: int
    """To the model, that were answered."""
    input: int = 0
    """Tokens, as the provider counts them; read from a cache and written to it not included."""
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost_usd: float | None = None
    """None: nobody said a price of this model. Never 0 in its place."""
    is_estimated: bool = False
    """Some of the tokens were counted by the node, roughly: the provider did not say."""

    def __post_init__(self) -> None:
        """Raises ValueError for what no honest node says."""
        counts = (self.requests, self.input, self.output, self.cache_read, self.cache_write)
        if not all(type(count) is int and 0 <= count <= TOKENS_MAX for count in counts):
            raise ValueError(f"requests and tokens are whole numbers from 0 to {TOKENS_MAX}, not {counts}")
        cost = self.cost_usd
        if cost is not None and not (type(cost) in (int, float) and math.isfinite(cost) and 0 <= cost <= COST_MAX_USD):
            raise ValueError(f"a cost is a number of US dollars from 0 to {COST_MAX_USD:g}, not {cost!r}")
        if not self.model or len(self.model) > MODEL_MAX_CHARS or not self.model.isprintable():
            raise ValueError(
                f"a model's name has 1 to {MODEL_MAX_CHARS} printable characters, not {self.model[:200]!r}"
            )


Spent = tuple[Spend, ...]
"""Of one attempt: one for each model, none twice."""


def model_name(said: str) -> str:
    """A name that a provider or a caller gave, fit to be kept: short and printable."""
    name = "".join(char if char.isprintable() else "?" for char in said[:MODEL_MAX_CHARS])
    return name.strip() or UNNAMED


def pack_spent(spent: Spent) -> list[list[object]]:
    """As JSON."""
    return [
        [
            one.model,
            one.requests,
            one.input,
            one.output,
            one.cache_read,
            one.cache_write,
            one.cost_usd,
            one.is_estimated,
        ]
        for one in spent
    ]


def unpack_spent(form: object) -> Spent:
    """From JSON; nothing where nothing was said.

    Raises:
        ValueError, TypeError: it is not what `pack_spent` makes.
    """
    if not form:
        return ()
    if not isinstance(form, list) or len(form) > MODELS_MAX + 1:
        raise ValueError("spend is a short list")
    found = tuple(_spend(row) for row in form)
    if len({one.model for one in found}) != len(found):
        raise ValueError("spend names each model once")
    return found


def _spend(row: object) -> Spend:
    """A row of a later version may be longer: what is new in it is left out."""
    if not isinstance(row, list) or len(row) < FIELDS or type(row[0]) is not str or type(row[FIELDS - 1]) is not bool:
        raise ValueError(f"not a spend: {str(row)[:200]}")
    return Spend(*row[:FIELDS])
