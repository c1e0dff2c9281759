"""How far back one page of a listing looks, so that its time does not grow with the ledger.

An index serves one of tenant, tool, project and state, in the order of acceptance. What no index serves, or several
at once, is looked for in a window of the newest rows, and the page's cursor leads on to older ones; a time is found by
halves, because later rows were accepted later. Indexes for the rest would cost every call its share, at its release.
"""

from __future__ import annotations

from sqlalchemy import bindparam, func, select

from orchestrator.ledger.readers import Reader
from orchestrator.ledger.tables import INVOCATIONS
from orchestrator.ledger.transaction import Hot
from orchestrator.ledger.values import Filter
from tasks.invocation import TERMINAL

WINDOW_ROWS = 20_000
"""One page looks through so many rows at most: some 30 ms on SQLite."""
SLACK_S = 600.0
"""Rows may be out of order by so much: clocks of two leaders, one after the other."""

_C = INVOCATIONS.c
_LAST = Hot(select(func.max(_C.seq)))
_FIRST = Hot(select(func.min(_C.seq)))
_NEXT = select(func.min(_C.seq)).where(_C.seq >= bindparam("p_seq")).scalar_subquery()
_AT = Hot(select(_C.accepted_at).where(_C.seq == _NEXT))


def horizon(reader: Reader, where: Filter, top: int | None) -> tuple[int | None, bool]:
    """The oldest row that a page looks at, and whether there are older ones that it would have to.

    Args:
        reader: a connection.
        where: what is looked for.
        top: the page before ended with this row; None for the first page.
    """
    is_scanned = _is_scanned(where)
    if not is_scanned and where.since is None:
        return None, False
    first = reader.tx.all(_FIRST, {})[0][0]
    last = reader.tx.all(_LAST, {})[0][0]
    if first is None:
        return None, False
    end = int(last) + 1 if top is None else top
    begin = int(first) if where.since is None else _begin_of(reader, where.since - SLACK_S, int(first), end)
    floor = max(begin, end - WINDOW_ROWS) if is_scanned else begin
    return floor, floor > begin


def _is_scanned(where: Filter) -> bool:
    """No single index finds exactly these rows."""
    indexed = sum((where.tool is not None, where.project is not None, bool(where.states)))
    # few calls have not ended, so a lane of those is found at once; of those that ended it is not
    is_lane_scanned = where.lane is not None and (not where.states or not where.states.isdisjoint(TERMINAL))
    if where.node is not None or where.principal is not None or where.took_s is not None:
        return True
    return indexed > 1 or is_lane_scanned


def _begin_of(reader: Reader, at: float, first: int, end: int) -> int:
    """The first row that was accepted at or after a time; `end` where none was."""
    low, high = first, max(first, end)
    while low < high:
        middle = (low + high) // 2
        found = reader.tx.all(_AT, {"p_seq": middle})
        if found and found[0][0] < at:
            low = middle + 1
        else:
            high = middle
    return low
