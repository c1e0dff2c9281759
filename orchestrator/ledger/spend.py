"""What attempts spent on models: booked once however often it is said, summed up for reports, forgotten late.

A row is an attempt's total for one model, and only grows: what is said again, or late, changes nothing. It
is booked whether or not the attempt's end took: money is a fact, also of what was superseded. Refuses to
know prices, and what of an attempt that this node never had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql import and_

from orchestrator.ledger.dbtime import utc_day
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.tables import ATTEMPTS, INVOCATIONS, SPEND
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import Booking, Cost, CostsBy, CostsQuery, SpendRow
from tasks.spend import Spend, Spent

AT_MAX = 253_402_300_799.0
"""The end of the year 9999: a node with a wild clock must not make a row that no report can date."""

_C, _A, _S = INVOCATIONS.c, ATTEMPTS.c, SPEND.c
_NUMBERS = ("requests", "input", "output", "cache_read", "cache_write")
_SAID = ("model", *_NUMBERS, "cost_usd", "is_estimated")
"""Fields of `Spend`, and columns."""
_KEY = ("invocation_id", "fence", "released_at", "model")
_ATTEMPT = and_(_S.invocation_id == _A.invocation_id, _S.fence == _A.fence, _S.released_at == _A.released_at)

_COST = Hot(
    select(func.sum(_S.cost_usd)).join_from(ATTEMPTS, SPEND, _ATTEMPT).where(_A.invocation_id == bindparam("p_id"))
)
_BEFORE = Hot(
    select(*(_S[name] for name in _SAID))
    .join_from(ATTEMPTS, SPEND, _ATTEMPT)
    .where(_A.invocation_id == bindparam("p_id"), _A.fence == bindparam("p_fence"))
)


def _book() -> Hot:
    said: tuple[BindParameter[Any], ...] = (
        bindparam("p_model", type_=Text),
        *(bindparam(f"p_{name}", type_=BigInteger) for name in _NUMBERS),
        bindparam("p_cost_usd", type_=Double),
        bindparam("p_is_estimated", type_=Boolean),
    )
    found = (
        select(
            _A.invocation_id,
            _A.fence,
            _A.released_at,
            _A.node,
            _C.tenant,
            _C.project,
            _C.tool,
            bindparam("p_at", type_=Double),
        )
        .add_columns(*said)
        .join_from(ATTEMPTS, INVOCATIONS, _C.id == _A.invocation_id)
        .where(_A.invocation_id == bindparam("p_id"), _A.fence == bindparam("p_fence"), _A.node == bindparam("p_node"))
    )
    new = insert(SPEND).from_select(
        ["invocation_id", "fence", "released_at", "node", "tenant", "project", "tool", "at", *_SAID], found
    )
    changed = {name: new.excluded[name] for name in ("at", *_NUMBERS, "cost_usd", "is_estimated")}
    is_more = new.excluded.requests > _S.requests
    return Hot(new.on_conflict_do_update(index_elements=list(_KEY), set_=changed, where=is_more).inline())


_BOOK = _book()
_FORGET_TO = Hot(
    select(_S.at)
    .where(_S.at < bindparam("p_before"))
    .order_by(_S.at)
    .limit(literal_column("1"))
    .offset(bindparam("p_skip", type_=Integer))
)
_FORGET = Hot(delete(SPEND).where(_S.at < bindparam("p_before")))
_FORGET_SLICE = Hot(delete(SPEND).where(_S.at <= bindparam("p_to")))
_BY: dict[CostsBy, ColumnElement[Any]] = {
    CostsBy.PROJECT: _S.project,
    CostsBy.MODEL: _S.model,
    CostsBy.NODE: _S.node,
    CostsBy.TOOL: _S.tool,
    CostsBy.DAY: utc_day(_S.at),
}


def book(tx: Tx, wanted: Sequence[Booking]) -> list[Spent]:
    """Keep what was spent; for each, what of it nobody had said before."""
    return [_booked(tx, one) for one in wanted]


def spent_usd(tx: Tx, invocation_id: str) -> float | None:
    """By all of its attempts until now; None where nothing has a price."""
    found: float | None = tx.all(_COST, {"p_id": invocation_id})[0][0]
    return found


def spend_of(reader: Reader, invocation_id: str) -> list[SpendRow]:
    """Of one Invocation: by attempt, then by model."""
    query = (
        select(_S.fence, _S.node, _S.at, *(_S[name] for name in _SAID))
        .join_from(ATTEMPTS, SPEND, _ATTEMPT)
        .where(_A.invocation_id == invocation_id)
        .order_by(_S.fence, _S.model)
    )
    return [SpendRow(row[0], row[1], row[2], _spend(row[3:])) for row in reader.core.execute(query)]


def costs(reader: Reader, query: CostsQuery) -> tuple[list[Cost], Cost]:
    """The groups, and all of it. Days are in their order, everything else by what it cost."""
    key = _BY[query.by]
    total = reader.core.execute(_within(select(literal_column("NULL"), *_SUMS), query)).one()
    grouped = _within(select(key, *_SUMS), query).group_by(key)
    if query.by is CostsBy.DAY:
        grouped = grouped.order_by(key.desc())
    else:
        tokens = func.sum(_S.input + _S.output + _S.cache_read + _S.cache_write)
        grouped = grouped.order_by(func.coalesce(func.sum(_S.cost_usd), -1.0).desc(), tokens.desc(), key)
    rows = [_cost(row) for row in reader.core.execute(grouped.limit(query.limit))]
    return (rows[::-1] if query.by is CostsBy.DAY else rows), _cost(total)


def forget_spend(tx: Tx, before: float, limit: int) -> int:
    """Delete about `limit` of the oldest rows from before that wall clock; how many there were."""
    found = tx.all(_FORGET_TO, {"p_before": before, "p_skip": limit})
    if not found:
        return tx.counts(_FORGET, [{"p_before": before}])[0]
    return tx.counts(_FORGET_SLICE, [{"p_to": found[0][0]}])[0]


_SUMS = (
    func.count(func.distinct(_S.invocation_id)),
    *(func.coalesce(func.sum(_S[name]), 0) for name in _NUMBERS),
    func.sum(_S.cost_usd),
    func.coalesce(func.sum(case((_S.cost_usd.is_(None), _S.requests), else_=0)), 0),
    func.coalesce(func.max(case((_S.is_estimated, 1), else_=0)), 0),
)


def _within(query: Select[Any], wanted: CostsQuery) -> Select[Any]:
    conditions = [_S.tenant == wanted.tenant, _S.at >= wanted.since, _S.at < wanted.until]
    if wanted.project is not None:
        conditions.append(_S.project == wanted.project)
    return query.where(and_(*conditions))


def _cost(row: Any) -> Cost:  # noqa: ANN401 - a row of whichever columns
    key, calls, requests, asked, said, cache_read, cache_write, cost_usd, unpriced, is_estimated = row
    return Cost(
        key=None if key is None else str(key),
        calls=int(calls),
        requests=int(requests),
        input=int(asked),
        output=int(said),
        cache_read=int(cache_read),
        cache_write=int(cache_write),
        cost_usd=None if cost_usd is None else float(cost_usd),
        unpriced_requests=int(unpriced),
        is_estimated=bool(is_estimated),
    )


def _spend(row: Sequence[Any]) -> Spend:
    model, requests, asked, said, cache_read, cache_write, cost_usd, is_estimated = row
    return Spend(model, requests, asked, said, cache_read, cache_write, cost_usd, bool(is_estimated))


def _booked(tx: Tx, one: Booking) -> Spent:
    before = {row[0]: _spend(row) for row in tx.all(_BEFORE, {"p_id": one.invocation_id, "p_fence": one.fence})}
    taken = tx.counts(_BOOK, [_row(one, spend) for spend in one.spent])
    return tuple(_since(before.get(spend.model), spend) for spend, count in zip(one.spent, taken, strict=True) if count)


def _since(before: Spend | None, now: Spend) -> Spend:
    """What was added. A price that was lost or found in between leaves the cost of the difference unknown."""
    if before is None:
        return now
    is_known = before.cost_usd is not None and now.cost_usd is not None
    return replace(
        now,
        **{name: max(0, getattr(now, name) - getattr(before, name)) for name in _NUMBERS},
        cost_usd=max(0.0, (now.cost_usd or 0.0) - (before.cost_usd or 0.0)) if is_known else None,
    )


def _row(one: Booking, spend: Spend) -> dict[str, object]:
    row: dict[str, object] = {f"p_{name}": getattr(spend, name) for name in _SAID}
    at = min(max(0.0, one.at), AT_MAX)
    return row | {"p_id": one.invocation_id, "p_fence": one.fence, "p_node": one.node, "p_at": at}
