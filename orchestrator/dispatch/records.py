"""The records one placement makes: the open attempt, the ledger's release, what listeners are told."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.happenings import AttemptReleased
from orchestrator.ledger.values import Outstanding, Release, Waiting
from tasks.invocation import State
from tasks.placement import Placement
from tasks.tool import Declared


@dataclass(frozen=True, slots=True)
class Address:
    """What a delivery to a node must name: its process and its lease's generation."""

    incarnation: str
    term: int


def attempt_of(call: Waiting, placement: Placement, address: Address, declared: Declared, at: float) -> Outstanding:
    """The attempt this placement opens, with the next fence."""
    return Outstanding(
        invocation_id=call.id,
        fence=call.fence + 1,
        node=placement.node,
        incarnation=address.incarnation or None,
        term=address.term,
        pool=placement.pool,
        lane=placement.lane,
        tool=call.tool,
        project=call.project,
        state=State.RELEASED,
        released_at=at,
        started_at=None,
        expires_at=call.expires_at,
        cancel_requested=False,
        tries=call.tries,
        is_chained=call.is_chained,
        declared=declared,
    )


def release_of(attempt: Outstanding, placement: Placement) -> Release:
    """What the ledger is asked to write."""
    return Release(
        invocation_id=attempt.invocation_id,
        expected_fence=attempt.fence - 1,
        pool=attempt.pool,
        node=attempt.node,
        incarnation=attempt.incarnation,
        term=attempt.term,
        lane=attempt.lane,
        queue=placement.queue,
        reasons=placement.reasons,
        at=attempt.released_at,
        declared=attempt.declared,
    )


def released_happening(call: Waiting, attempt: Outstanding, placement: Placement) -> AttemptReleased:
    """What listeners are told once the ledger wrote it."""
    return AttemptReleased(
        invocation_id=attempt.invocation_id,
        fence=attempt.fence,
        tool=attempt.tool,
        project=attempt.project,
        pool=attempt.pool,
        node=attempt.node,
        lane=attempt.lane,
        queue=placement.queue,
        at=attempt.released_at,
        waited_s=attempt.released_at - max(call.accepted_at, call.not_before or 0.0),
        reasons=placement.reasons,
    )
