"""What one call used of models until now, told on after every request.

One for each call, from its arguments to its end, however it ends: a run that fails, is cancelled or waits
has spent what it spent. Refuses to know prices: whoever counts a request says what it cost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable

from tasks.spend import COST_MAX_USD, MODELS_MAX, OTHERS, TOKENS_MAX, Spend, Spent, model_name
from worker.sidecars.sidecar import Result, Usage
from worker.upstreams.upstream import OnRequest, nobody_counts


def loop_s() -> float:
    """The running loop's clock, for how long a request took."""
    return asyncio.get_running_loop().time()


class Bill:
    """Grows; nothing is ever taken from it."""

    def __init__(self, tell: Callable[[Spent], None] = lambda _: None, on_request: OnRequest = nobody_counts) -> None:
        """`tell` is called with all of it, whenever it grew; in the event loop, must not block.

        `on_request` is told of each request by itself.
        """
        self._tell, self._on_request = tell, on_request
        self._by_model: dict[str, Spend] = {}
        self.usage = Usage()
        self.known_usd = 0.0
        """Of what has a price."""

    @property
    def cost_usd(self) -> float | None:
        """None where a price is missing."""
        return None if any(one.cost_usd is None for one in self._by_model.values()) else self.known_usd

    def spent(self) -> Spent:
        """By model."""
        return tuple(self._by_model.values())

    def add(self, model: str, usage: Usage, cost_usd: float | None, took_s: float = 0.0) -> None:
        """One request that was answered, whole or in part; `cost_usd` None where there is no price."""
        name = model_name(model)
        if name not in self._by_model and len(self._by_model) >= MODELS_MAX:
            name = OTHERS
        cost_usd = None if cost_usd is None or not math.isfinite(cost_usd) else min(max(0.0, cost_usd), COST_MAX_USD)
        self._by_model[name] = _more(self._by_model.get(name), name, usage, cost_usd)
        self.usage += usage
        self.known_usd += cost_usd or 0.0
        self._tell(self.spent())
        self._on_request(_more(None, name, usage, cost_usd), took_s)


def agreed(result: Result, bill: Bill, model: str, *, is_counted: bool) -> Result:
    """The Result with what the bill says, also where it came from a limit that knows no figures.

    A runtime whose requests nobody counts here says itself what it used: that goes on the bill, under `model`. Where
    they are counted (`is_counted`) its word is no figure of the fleet's: an agent may say anything.
    """
    if not is_counted and not bill.spent() and (result.usage != Usage() or result.cost_usd):
        bill.add(model, result.usage, result.cost_usd)
    if not bill.spent():
        return result
    return dataclasses.replace(result, usage=bill.usage, cost_usd=bill.cost_usd)


def _more(before: Spend | None, name: str, usage: Usage, cost_usd: float | None) -> Spend:
    was = before or Spend(name, 0, cost_usd=0.0)
    is_known = was.cost_usd is not None and cost_usd is not None
    return Spend(
        name,
        was.requests + 1,
        min(TOKENS_MAX, was.input + usage.input),
        min(TOKENS_MAX, was.output + usage.output),
        min(TOKENS_MAX, was.cache_read + usage.cache_read),
        min(TOKENS_MAX, was.cache_write + usage.cache_write),
        min(COST_MAX_USD, (was.cost_usd or 0.0) + (cost_usd or 0.0)) if is_known else None,
        was.is_estimated or usage.is_estimated,
    )
