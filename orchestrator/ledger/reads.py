"""Questions to the ledger, answered from what is committed.

One Invocation with its attempts; pages of many; what the dispatcher and the registry load at their
start. Refuses to change anything.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import ColumnElement, RowMapping, Select, and_, bindparam, func, or_, select

from orchestrator.ledger.horizon import horizon
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.rows import (
    LIGHT,
    READ,
    attempt_of,
    invocation_of,
    is_chained,
    principal_of,
    strings_of,
)
from orchestrator.ledger.tables import AFFINITY, ATTEMPTS, INVOCATIONS, NODES, PAUSES
from orchestrator.ledger.transaction import Hot
from orchestrator.ledger.values import Filter, NodeRow, Outstanding, Waiting
from tasks.errors import InvalidCall, NotFound
from tasks.invocation import OUTSTANDING, Invocation, Lane, State
from tasks.tool import Declared, OnNodeLoss

_C, _A = INVOCATIONS.c, ATTEMPTS.c
_ATTEMPT = tuple(column.name for column in ATTEMPTS.columns)

_GET = Hot(select(*(_C[name] for name in READ)).where(_C.id == bindparam("p_id")))
_ATTEMPTS_OF = Hot(
    select(*(_A[name] for name in _ATTEMPT))
    .where(_A.invocation_id == bindparam("p_id"), _A.fence <= bindparam("p_fence"))
    .order_by(_A.fence)
)
_ARGUMENTS = Hot(select(_C.arguments_json, _C.arguments_blob).where(_C.id == bindparam("p_id")))
_OWN_ATTEMPT = and_(_A.invocation_id == _C.id, _A.fence == _C.fence)


def get(reader: Reader, invocation_id: str, tenant: str | None) -> Invocation:
    """One Invocation with its outcome and attempts.

    Raises:
        NotFound: no such Invocation, or another tenant's.
    """
    found = reader.tx.all(_GET, {"p_id": invocation_id})
    row = dict(zip(READ, found[0], strict=True)) if found else {}
    if not row or tenant not in {None, row["tenant"]}:
        raise NotFound("invocation", invocation_id)
    # A release between the two reads would show an attempt that its Invocation does not have yet.
    attempts = reader.tx.all(_ATTEMPTS_OF, {"p_id": invocation_id, "p_fence": row["fence"]}) if row["fence"] else []
    return invocation_of(row, tuple(attempt_of(dict(zip(_ATTEMPT, one, strict=True))) for one in attempts))


def arguments_of(reader: Reader, invocation_id: str) -> tuple[str | None, str | None]:
    """The arguments: their JSON text, or the blob that holds them.

    Raises:
        NotFound: no such Invocation.
    """
    found = reader.tx.all(_ARGUMENTS, {"p_id": invocation_id})
    if not found:
        raise NotFound("invocation", invocation_id)
    text, blob = found[0]
    return (None, blob) if blob else (text, None)


def listing(reader: Reader, where: Filter, cursor: str | None, limit: int) -> tuple[list[Invocation], str | None]:
    """One page, newest first, and the cursor of the next; each with its latest attempt only.

    Arguments and results are left out: `call.arguments_json` is `{}`. A page looks only so far back (`horizon.py`): it
    may have fewer than `limit`, even none, and a cursor that leads on.

    Raises:
        InvalidCall: the cursor is not one that a listing gave.
    """
    attempt = [_A[name].label(f"attempt_{name}") for name in _ATTEMPT]
    query = select(*(_C[name] for name in LIGHT), *attempt).outerjoin_from(INVOCATIONS, ATTEMPTS, _OWN_ATTEMPT)
    query = query.where(*_conditions(where))
    floor, has_older = horizon(reader, where, None if cursor is None else seq_of(cursor))
    if floor is not None:
        query = query.where(_C.seq >= floor)
    rows, following = _of_states(reader, query, where, cursor, limit)
    return [_listed(row) for row in rows], str(floor) if following is None and has_older else following


def waiting(reader: Reader, after: str | None, limit: int) -> list[Waiting]:
    """A page of what waits, in the order of acceptance, after the one with the id `after`."""
    query = select(
        *(_C[name] for name in _WAITING_COLUMNS),
    ).where(_C.state == State.WAITING.value)
    if after is not None:
        query = query.where(_C.seq > select(_C.seq).where(_C.id == after).scalar_subquery())
    return [_waiting(row) for row in reader.core.execute(query.order_by(_C.seq).limit(limit)).mappings()]


def outstanding(reader: Reader) -> list[Outstanding]:
    """Every attempt that was released and not settled, oldest first."""
    query = (
        select(
            *(
                _C[name]
                for name in ("id", "fence", "tool", "project", "state", "expires_at", "cancel_requested", "tries")
            ),
            _C.rest_json,
            *(_A[name] for name in ("node", "incarnation", "term", "pool", "lane", "released_at", "started_at")),
            _A.is_safe,
            _A.on_node_loss,
        )
        .join_from(INVOCATIONS, ATTEMPTS, _OWN_ATTEMPT)
        .where(_C.state.in_(sorted(OUTSTANDING)))
        .order_by(_C.seq)
    )
    return [_outstanding(row) for row in reader.core.execute(query).mappings()]


def blob_references(reader: Reader, after: int, limit: int) -> tuple[list[str], int | None]:
    """One page of blob digests, in the order of acceptance of the rows that name them."""
    named = (_C.arguments_blob, _C.result_blob, _C.capsule_blob)
    query = select(_C.seq, *named).where(_C.seq > after, or_(*(column.is_not(None) for column in named)))
    rows = reader.core.execute(query.order_by(_C.seq).limit(limit)).all()
    digests = [digest for _seq, *found in rows for digest in found if digest is not None]
    return digests, int(rows[-1].seq) if len(rows) == limit else None


def nodes(reader: Reader) -> list[NodeRow]:
    """Every node that was saved and not forgotten."""
    return [NodeRow(**row) for row in reader.core.execute(select(NODES).order_by(NODES.c.name)).mappings()]


def affinities(reader: Reader) -> list[tuple[str, str, float]]:
    """Project, node and when the binding fades."""
    query = select(AFFINITY.c.project, AFFINITY.c.node, AFFINITY.c.expires_at).order_by(AFFINITY.c.project)
    return [(row.project, row.node, row.expires_at) for row in reader.core.execute(query)]


def paused(reader: Reader) -> set[tuple[str, str]]:
    """Kind and name of what is paused."""
    return {(row.kind, row.name) for row in reader.core.execute(select(PAUSES.c.kind, PAUSES.c.name))}


def _conditions(where: Filter) -> list[ColumnElement[bool]]:
    equal = {
        "tenant": where.tenant,
        "project": where.project,
        "tool": where.tool,
        "node": where.node,
        "lane": where.lane,
        "principal": where.principal,
    }
    found: list[ColumnElement[bool]] = [_C[name] == value for name, value in equal.items() if value is not None]
    if where.since is not None:
        found.append(_C.accepted_at >= where.since)
    if where.took_s is not None:
        found.append(func.coalesce(_C.ended_at, where.now) - _C.accepted_at >= where.took_s)
    if len(where.states) == 1:
        found.append(_C.state == next(iter(where.states)))
    return found


def _of_states(
    reader: Reader, query: Select[Any], where: Filter, cursor: str | None, limit: int
) -> tuple[list[RowMapping], str | None]:
    """One page of several states: the index has them one after the other, so each is asked for by itself.

    SQLite would walk all that the tenant ever called to find the few that have not ended (measured).
    """
    if len(where.states) <= 1:
        return page(reader, query, _C.seq, cursor, limit)
    pages = [page(reader, query.where(_C.state == state), _C.seq, cursor, limit) for state in sorted(where.states)]
    rows = sorted((row for found, _ in pages for row in found), key=lambda row: -int(row["page_seq"]))
    has_more = len(rows) > limit or any(following is not None for _, following in pages)
    return rows[:limit], str(rows[limit - 1]["page_seq"]) if has_more else None


def page(
    reader: Reader, query: Select[Any], seq: ColumnElement[int], cursor: str | None, limit: int
) -> tuple[list[RowMapping], str | None]:
    """One page of any query, newest first, and the cursor of the next. Raises InvalidCall."""
    if cursor is not None:
        query = query.where(seq < seq_of(cursor))
    query = query.add_columns(seq.label("page_seq")).order_by(seq.desc()).limit(limit + 1)
    rows = list(reader.core.execute(query).mappings())
    return rows[:limit], str(rows[limit - 1]["page_seq"]) if len(rows) > limit else None


def seq_of(cursor: str) -> int:
    """The row that a page ended with. Raises InvalidCall: the cursor is not one that a listing gave."""
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < len(str(2**63))):
        raise InvalidCall(f"cursor {cursor[:40]!r} is not one that a listing gave; begin again without it")
    return int(cursor)


def _listed(row: RowMapping) -> Invocation:
    attempt = {name: row[f"attempt_{name}"] for name in _ATTEMPT}
    return invocation_of(dict(row), () if attempt["fence"] is None else (attempt_of(attempt),))


_WAITING_COLUMNS = (
    "id",
    "tool",
    "project",
    "tenant",
    "lane",
    "pool",
    "priority",
    "accepted_at",
    "not_before",
    "expires_at",
    "fence",
    "tries",
    "principal",
    "requires_json",
    "rest_json",
)
_READ_ANEW = frozenset({"lane", "principal", "requires_json", "rest_json"})


def _waiting(row: RowMapping) -> Waiting:
    plain = {name: row[name] for name in _WAITING_COLUMNS if name not in _READ_ANEW}
    rest = orjson.loads(row["rest_json"]) if row["rest_json"] else {}
    return Waiting(
        lane=Lane(row["lane"]),
        requires=strings_of(row["requires_json"]),
        is_chained=is_chained(row["rest_json"]),
        principal=principal_of(row["principal"], row["tenant"], rest),
        **plain,
    )


def _outstanding(row: RowMapping) -> Outstanding:
    plain = {
        name: row[name]
        for name in (
            "fence",
            "node",
            "incarnation",
            "term",
            "pool",
            "tool",
            "project",
            "released_at",
            "started_at",
            "expires_at",
            "tries",
        )
    }
    return Outstanding(
        invocation_id=row["id"],
        lane=Lane(row["lane"]),
        state=State(row["state"]),
        cancel_requested=bool(row["cancel_requested"]),
        is_chained=is_chained(row["rest_json"]),
        declared=Declared(bool(row["is_safe"]), OnNodeLoss(row["on_node_loss"] or OnNodeLoss.ASK)),
        **plain,
    )
