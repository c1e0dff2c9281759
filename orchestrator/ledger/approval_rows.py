"""Approvals: questions of runs to people, kept with what was said to them.

A question takes only while the attempt that asks is current and open, an answer only once, to just the arguments
that were asked, and only until the question's end. Refuses to tell any node: `orchestrator/approvals` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.approval_values import ApprovalRow, NewAnswer, NewApproval
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.reads import page
from orchestrator.ledger.rows import storable
from orchestrator.ledger.tables import APPROVALS, INVOCATIONS, is_still
from orchestrator.ledger.transaction import Found, Hot, Tx
from tasks.approval import ApprovalState, Taken, Verdict
from tasks.errors import AlreadyAnswered, ApprovalOver, NotFound, OtherArguments
from tasks.invocation import OUTSTANDING

_P, _C = APPROVALS.c, INVOCATIONS.c
_ASKED = tuple(field.name for field in fields(NewApproval))
_SAID = ("tenant", "answer", "answered_by", "answered_at", "reason", "taken", "taken_at")
_ONE: ColumnElement[int] = literal_column("1")
_NONE: ColumnElement[int] = literal_column("0")
_IS_CURRENT = case((and_(_C.fence == _P.fence, _C.node == _P.node, is_still(OUTSTANDING)), _ONE), else_=_NONE)
_COLUMNS = (
    *(_P[name] for name in (*_ASKED, *_SAID)),
    _C.tool.label("fleet_tool"),
    _C.project,
    _IS_CURRENT.label("is_current"),
)
_NAMES = (*_ASKED, *_SAID, "fleet_tool", "project", "is_current")
_SELECT = select(*_COLUMNS).join_from(APPROVALS, INVOCATIONS, _C.id == _P.invocation_id)
_GET = Hot(_SELECT.where(_P.id == bindparam("p_id")))
_LOCK = Hot(select(_P.seq).where(_P.id == bindparam("p_id")).with_for_update())
_TYPES = {"fence": Integer, "asked_at": Double, "expires_at": Double, "frees_slot": Boolean}
_ASK = Hot(
    insert(APPROVALS)
    .from_select(
        [*_ASKED, "tenant"],
        select(*(bindparam(f"p_{name}", type_=_TYPES.get(name, Text)).label(name) for name in _ASKED), _C.tenant).where(
            _C.id == bindparam("p_invocation_id", type_=Text),
            _C.fence == bindparam("p_fence", type_=Integer),
            _C.node == bindparam("p_node", type_=Text),
            is_still(OUTSTANDING),
        ),
    )
    .on_conflict_do_nothing(index_elements=["id"])
    .inline()
)
_ANSWER = Hot(
    update(APPROVALS)
    .where(_P.id == bindparam("p_id"), _P.answer.is_(None), _P.taken.is_(None))
    .values(
        answer=bindparam("p_answer"),
        answered_by=bindparam("p_by"),
        answered_at=bindparam("p_at"),
        reason=bindparam("p_reason"),
    )
)
_TAKE = Hot(
    update(APPROVALS)
    .where(_P.id == bindparam("p_id"), _P.node == bindparam("p_node"), _P.taken.is_(None))
    .values(taken=bindparam("p_taken"), taken_at=bindparam("p_at"))
)


def ask(tx: Tx, asked: NewApproval) -> tuple[ApprovalRow | None, bool]:
    """Keep it; the row that stands, and whether it is new. None where the attempt is not current."""
    is_new = bool(tx.counts(_ASK, [{f"p_{name}": value for name, value in asdict(asked).items()}])[0])
    found = tx.all(_GET, {"p_id": asked.id})
    row = _row(dict(zip(_NAMES, found[0], strict=True))) if found else None
    if row is None or row.question.node != asked.node or not row.is_current:
        return None, False
    return row, is_new


def answer(tx: Tx, approval_id: str, tenant: str | None, said: NewAnswer) -> tuple[ApprovalRow, bool]:
    """Keep what a person said; the row as it is then, and whether nobody had said it before.

    Raises:
        NotFound, OtherArguments, AlreadyAnswered, ApprovalOver: nothing was kept.
    """
    tx.all(_LOCK, {"p_id": approval_id})
    row = _one(tx.all(_GET, {"p_id": approval_id}), approval_id, tenant)
    if said.arguments_sha256 != row.question.arguments_sha256:
        raise OtherArguments(approval_id, row.question.arguments_sha256)
    if row.answer is not None and row.answer is not said.verdict:
        raise AlreadyAnswered(approval_id, row.answer, row.answered_by)
    if row.answer is said.verdict:
        return row, False
    state = row.state(said.at)
    if state is ApprovalState.EXPIRED:
        raise ApprovalOver(approval_id, "its time was over, and the agent was told no")
    if state is not ApprovalState.WAITING or row.taken is not None:
        raise ApprovalOver(approval_id, "the attempt that asked has ended, or was superseded")
    values = {"p_answer": said.verdict.value, "p_by": said.by, "p_at": said.at, "p_reason": storable(said.reason)}
    tx.put(_ANSWER, [{"p_id": approval_id, **values}])
    return _one(tx.all(_GET, {"p_id": approval_id}), approval_id, tenant), True


def take(tx: Tx, approval_id: str, node: str, taken: Taken, at: float) -> None:
    """Keep what its node made of it; said again, the first word stands."""
    tx.put(_TAKE, [{"p_id": approval_id, "p_node": node, "p_taken": taken.value, "p_at": at}])


def get(reader: Reader, approval_id: str, tenant: str | None) -> ApprovalRow:
    """Raises NotFound: none of this tenant."""
    return _one(reader.tx.all(_GET, {"p_id": approval_id}), approval_id, tenant)


def listing(  # noqa: PLR0917 - which page of what
    reader: Reader,
    tenant: str | None,
    states: frozenset[ApprovalState],
    now_s: float,
    cursor: str | None,
    limit: int,
) -> tuple[list[ApprovalRow], str | None]:
    """One page, newest first. Raises InvalidCall: the cursor is not one that this gave."""
    query = _SELECT
    if tenant is not None:
        query = query.where(_P.tenant == tenant)
    if states:
        query = query.where(or_(*(_condition(state, now_s) for state in sorted(states))))
    rows, following = page(reader, query, _P.seq, cursor, limit)
    return [_row(dict(row)) for row in rows], following


def unresolved(reader: Reader) -> list[ApprovalRow]:
    """Of open attempts, what no node has said its word on; oldest first."""
    query = _SELECT.where(_P.taken.is_(None), _IS_CURRENT == 1).order_by(_P.seq)
    return [_row(dict(row)) for row in reader.core.execute(query).mappings()]


def _condition(state: ApprovalState, now_s: float) -> ColumnElement[bool]:
    """The same as `ApprovalRow.state` says; a test holds them together."""
    is_late = _P.taken == Taken.EXPIRED.value
    unanswered = and_(_P.answer.is_(None), _P.taken.is_distinct_from(Taken.EXPIRED.value))
    match state:
        case ApprovalState.WAITING:
            return and_(unanswered, _IS_CURRENT == 1, _P.expires_at > now_s)
        case ApprovalState.EXPIRED:
            return or_(is_late, and_(unanswered, _IS_CURRENT == 1, _P.expires_at <= now_s))
        case ApprovalState.OVER:
            return and_(unanswered, _IS_CURRENT == 0)
        case ApprovalState.ALLOWED | ApprovalState.DENIED:
            verdict = Verdict.ALLOW if state is ApprovalState.ALLOWED else Verdict.DENY
            return and_(_P.answer == verdict.value, _P.taken.is_distinct_from(Taken.EXPIRED.value))


def _one(found: list[Found], approval_id: str, tenant: str | None) -> ApprovalRow:
    row = _row(dict(zip(_NAMES, found[0], strict=True))) if found else None
    if row is None or tenant not in {None, row.tenant}:
        raise NotFound("approval", approval_id)
    return row


def _row(found: Mapping[str, Any]) -> ApprovalRow:
    asked = {name: found[name] for name in _ASKED} | {"frees_slot": bool(found["frees_slot"])}
    return ApprovalRow(
        question=NewApproval(**asked),
        tenant=found["tenant"],
        fleet_tool=found["fleet_tool"],
        project=found["project"],
        is_current=bool(found["is_current"]),
        answer=None if found["answer"] is None else Verdict(found["answer"]),
        answered_by=found["answered_by"],
        answered_at=found["answered_at"],
        reason=found["reason"],
        taken=None if found["taken"] is None else Taken(found["taken"]),
        taken_at=found["taken_at"],
    )
