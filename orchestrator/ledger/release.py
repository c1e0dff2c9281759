"""From waiting to running: releases, claims by late binding, and what nodes have started.

Every change is a compare-and-set on the fence; a release also needs the leader's epoch. Refuses to
choose nodes: `orchestrator/dispatch` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, false, func, insert, literal_column, or_, update

from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.fleet_rows import current_epoch
from orchestrator.ledger.moves import sources
from orchestrator.ledger.rows import dumps, trace_parent_of
from orchestrator.ledger.spend import spent_usd
from orchestrator.ledger.tables import ATTEMPTS, INVOCATIONS, is_still
from orchestrator.ledger.transaction import Found, Hot, Tx
from orchestrator.ledger.values import Release, Released, Started
from tasks.errors import FleetError
from tasks.invocation import State

_C, _A = INVOCATIONS.c, ATTEMPTS.c
_THIS_FENCE = (_C.id == bindparam("p_id"), _C.fence == bindparam("p_fence"))
_THIS_ATTEMPT = (_A.invocation_id == bindparam("p_id"), _A.fence == bindparam("p_fence"), _A.ended_at.is_(None))

_RELEASE = Hot(
    update(INVOCATIONS)
    .where(*_THIS_FENCE, is_still(sources(State.RELEASED)))
    .values(
        state=literal_column(f"'{State.RELEASED.value}'"),
        fence=_C.fence + literal_column("1"),
        node=bindparam("p_node"),
    )
    .returning(
        _C.tool,
        _C.arguments_json,
        _C.arguments_blob,
        _C.project,
        _C.tenant,
        _C.expires_at,
        _C.timeout_s,
        _C.trace_id,
        _C.meta_json,
        _C.tries,
        _C.capsule_blob,
        _C.principal,
        _C.rest_json,
    )
)
_NEW_ATTEMPT = Hot(
    insert(ATTEMPTS).inline(),
    (
        "invocation_id",
        "fence",
        "node",
        "incarnation",
        "term",
        "pool",
        "lane",
        "queue",
        "released_at",
        "reasons_json",
        "is_safe",
        "on_node_loss",
    ),
)
_RUNNING = Hot(
    update(INVOCATIONS)
    .where(*_THIS_FENCE, _C.node == bindparam("p_node"), is_still(sources(State.RUNNING)))
    .values(state=literal_column(f"'{State.RUNNING.value}'"))
)
_STARTED = Hot(
    update(ATTEMPTS)
    .where(*_THIS_ATTEMPT, _A.node == bindparam("p_node"))
    .values(started_at=func.coalesce(_A.started_at, bindparam("p_at")))
)
_CLAIM = Hot(
    update(INVOCATIONS)
    .where(
        *_THIS_FENCE,
        is_still([State.RELEASED]),
        _C.cancel_requested == false(),
        or_(_C.node.is_(None), _C.node == bindparam("p_node")),
    )
    .values(node=bindparam("p_node"))
)
_CLAIM_ATTEMPT = Hot(
    update(ATTEMPTS)
    .where(
        *_THIS_ATTEMPT,
        or_(
            _A.node.is_(None),
            (_A.node == bindparam("p_node")) & (_A.incarnation == bindparam("p_incarnation")),
        ),
    )
    .values(node=bindparam("p_node"), incarnation=bindparam("p_incarnation"), term=bindparam("p_term"))
)


@dataclass(frozen=True, slots=True)
class Releases:
    """One caller's releases, under the epoch it believes in."""

    wanted: tuple[Release, ...]
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """One node's claim of late-bound deliveries."""

    node: str
    incarnation: str
    term: int
    refs: tuple[tuple[str, int], ...]


def release(tx: Tx, asked: Sequence[Releases]) -> list[list[Released | None] | FleetError]:
    """Release what is still waiting at the expected fence; None where it is not."""
    current = current_epoch(tx)
    wanted = [one for ask in asked if ask.epoch == current for one in ask.wanted]
    found = tx.firsts(
        _RELEASE, [{"p_id": one.invocation_id, "p_fence": one.expected_fence, "p_node": one.node} for one in wanted]
    )
    pairs = [(one, None if row is None else _released(tx, one, row)) for one, row in zip(wanted, found, strict=True)]
    tx.put(_NEW_ATTEMPT, [_attempt_row(one) for one, released in pairs if released is not None])
    answers = iter([released for _, released in pairs])
    return [
        [next(answers) for _ in ask.wanted] if ask.epoch == current else EpochLost(ask.epoch, current) for ask in asked
    ]


def mark_started(tx: Tx, asked: Sequence[Sequence[Started]]) -> list[FleetError | None]:
    """To RUNNING where it applies; an old fence, another node or an end is passed over."""
    rows = [
        {"p_id": one.invocation_id, "p_fence": one.fence, "p_node": one.node, "p_at": one.at}
        for ask in asked
        for one in ask
    ]
    tx.put(_RUNNING, rows)
    tx.put(_STARTED, rows)
    return [None for _ in asked]


def claim(tx: Tx, asked: Sequence[Claim]) -> list[list[tuple[str, int]] | FleetError]:
    """Bind late-bound attempts to the node that took them; the refs that are now its own.

    A claim that is repeated, because its answer was lost, is granted again to the same incarnation.
    """
    rows = [_claim_row(ask, ref) for ask in asked for ref in ask.refs]
    free = iter(tx.counts(_CLAIM, rows))
    bound = [row for row in rows if next(free)]
    counts = tx.counts(_CLAIM_ATTEMPT, bound)
    own = {id(row) for row, count in zip(bound, counts, strict=True) if count}
    answers = iter(id(row) in own for row in rows)
    return [[ref for ref in ask.refs if next(answers)] for ask in asked]


def _claim_row(ask: Claim, ref: tuple[str, int]) -> dict[str, object]:
    return {
        "p_id": ref[0],
        "p_fence": ref[1],
        "p_node": ask.node,
        "p_incarnation": ask.incarnation,
        "p_term": ask.term,
    }


def _attempt_row(one: Release) -> dict[str, object]:
    return {
        "invocation_id": one.invocation_id,
        "fence": one.expected_fence + 1,
        "node": one.node,
        "incarnation": one.incarnation,
        "term": one.term,
        "pool": one.pool,
        "lane": one.lane.value,
        "queue": one.queue,
        "released_at": one.at,
        "reasons_json": dumps(one.reasons),
        "is_safe": one.declared.is_safe,
        "on_node_loss": one.declared.on_node_loss.value,
    }


def _released(tx: Tx, one: Release, row: Found) -> Released:
    tool, arguments_json, arguments_blob, project, tenant, expires_at, timeout_s, trace_id, meta_json, *rest = row
    tries, capsule, principal, rest_json = rest
    return Released(
        invocation_id=one.invocation_id,
        fence=one.expected_fence + 1,
        tool=tool,
        arguments_json=None if arguments_blob else arguments_json,
        arguments_blob=arguments_blob,
        project=project,
        tenant=tenant,
        expires_at=expires_at,
        timeout_s=timeout_s,
        trace_id=trace_id,
        meta_json=meta_json,
        tries=tries,
        capsule=capsule,
        spent_usd=None if capsule is None else spent_usd(tx, one.invocation_id),
        principal=principal,
        trace_parent=trace_parent_of(rest_json),
    )
