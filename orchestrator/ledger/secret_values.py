"""A secret as the ledger keeps it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field


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
