"""A secret as the ledger keeps it, and sealed texts of other rows on their way to another key. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class SecretRow:
    """The newest version of one secret."""

    tenant: str
    owner: str
    name: str
    version: int
    source: str
    nodes: str
    """Names with spaces between them; `pools` too."""
    pools: str
    created_at: float
    changed_at: float
    changed_by: str
    sealed: str | None = field(repr=False)


class Text(NamedTuple):
    """One sealed text of a row."""

    sealed: str
    aad: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One column of one row, as it was read and as it is to be."""

    column: str
    id: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of one slice that have a text under another key than the newest."""

    rows: tuple[dict[str, Any], ...]
    after: int | None
    """Where the next slice begins; None at the end."""


@dataclass(frozen=True, slots=True)
class Resealed:
    """How far a pass over the rows is."""

    texts: int = 0
    """Under the newest key now, and were not."""
    unopened: int = 0
    """Left as they are: their key is not in the file, or they were changed."""
    is_running: bool = False
    stopped: str | None = None
    """Why it ended before its end."""
