"""What tenants and their projects used today, and what of agents they have under way: for quotas.

Three sums, each by an index; asked for every few seconds, and only where quotas are set.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sqlalchemy import func, select

from orchestrator.ledger.readers import Reader
from orchestrator.ledger.tables import INVOCATIONS, SPEND
from orchestrator.ledger.values import UsedRow
from tasks.invocation import OUTSTANDING, Lane, State

_C, _S = INVOCATIONS.c, SPEND.c
_OPEN = sorted({*OUTSTANDING, State.WAITING})


def used(reader: Reader, since: float) -> list[UsedRow]:
    """By tenant and project: calls accepted and money spent since that wall clock, runs of agents now."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}

    def add(name: str, query: Any) -> None:  # noqa: ANN401 - a select of whichever columns
        for tenant, project, value in reader.core.execute(query):
            found.setdefault((tenant, project), {})[name] = value

    key = (_C.tenant, _C.project)
    add("calls", select(*key, func.count()).where(_C.accepted_at >= since).group_by(*key))
    runs = select(*key, func.count()).where(_C.state.in_(_OPEN), _C.lane == Lane.AGENTS.value).group_by(*key)
    add("runs", runs)
    spent = (_S.tenant, _S.project)
    tokens = func.sum(_S.input + _S.output + _S.cache_read + _S.cache_write)
    add("tokens", select(*spent, tokens).where(_S.at >= since).group_by(*spent))
    add("cost_usd", select(*spent, func.coalesce(func.sum(_S.cost_usd), 0.0)).where(_S.at >= since).group_by(*spent))
    return [
        UsedRow(
            tenant,
            project,
            int(row.get("calls", 0)),
            int(row.get("runs", 0)),
            int(row.get("tokens", 0)),
            float(row.get("cost_usd", 0.0)),
        )
        for (tenant, project), row in found.items()
    ]


class Readers(Protocol):
    """The ledger."""

    async def read(self, question: Callable[[Reader], list[UsedRow]]) -> list[UsedRow]: ...


class UsedRows:
    """The same, of a ledger."""

    def __init__(self, ledger: Readers) -> None:
        self._ledger = ledger

    async def used(self, since: float) -> list[UsedRow]:
        """Since that wall clock."""
        return await self._ledger.read(partial(used, since=since))
