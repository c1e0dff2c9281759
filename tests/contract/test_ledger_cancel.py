"""Ends that no node says: a cancel, a deadline that passed; and what becomes of dead letters."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.ledger.dead_values import DeadCount, DeadFilter
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, failure, new, release_of, released, success
from orchestrator.ledger.values import Cancelled
from tasks.errors import IdempotencyConflict, NotFound
from tasks.invocation import State


async def test_what_waits_is_cancelled_at_once(ledger: Ledger) -> None:
    """It ends, and can no longer be released."""
    (one,) = await accepted(ledger, new())
    assert await ledger.cancel(one, "default", AT + 1) == Cancelled(one, State.WAITING, State.CANCELLED, None, 0)
    invocation = await ledger.get(one)
    assert (invocation.state, invocation.ended_at) == (State.CANCELLED, AT + 1)
    assert invocation.outcome is not None
    assert invocation.outcome.ending == "cancelled"
    assert await released(ledger, [one]) == []


async def test_what_runs_is_asked_to_stop(ledger: Ledger) -> None:
    """It goes on until its node has stopped it; everybody can see that it was asked to."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    assert await ledger.cancel(one, None, AT + 1) == Cancelled(one, State.RELEASED, State.RELEASED, "n1", 1)
    assert (await ledger.get(one)).cancel_requested
    assert (await ledger.outstanding())[0].cancel_requested


async def test_what_ended_stays_as_it_ended(ledger: Ledger) -> None:
    """A cancel that is too late says so and changes nothing."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    await ledger.settle([success(one)])
    ended = await ledger.get(one)
    assert (await ledger.cancel(one, None, AT + 9)).state is State.SUCCEEDED
    assert await ledger.get(one) == ended


@pytest.mark.parametrize(("invocation_id", "tenant"), [("unknown", None), ("of-acme-inc", "default")])
async def test_another_tenants_call_cannot_be_cancelled(ledger: Ledger, invocation_id: str, tenant: str | None) -> None:
    """A foreign id is not found, as an unknown one is; the neighbour in the group is cancelled."""
    await ledger.accept([new(invocation_id="of-acme-inc", tenant="acme"), new(invocation_id="neighbour")])
    answers = await asyncio.gather(
        ledger.cancel(invocation_id, tenant, AT), ledger.cancel("neighbour", None, AT), return_exceptions=True
    )
    assert isinstance(answers[0], NotFound)
    assert (await ledger.get("of-acme-inc")).state is State.WAITING
    assert (await ledger.get("neighbour")).state is State.CANCELLED


async def test_a_cancel_and_a_release_in_one_group_agree(ledger: Ledger) -> None:
    """Either it is released and asked to stop, or it ended before it was released."""
    (one,) = await accepted(ledger, new())
    epoch = await ledger.take_epoch("orchestrator-1", 10.0)
    assert epoch is not None
    cancelled, took = await asyncio.gather(ledger.cancel(one, None, AT), ledger.release([release_of(one)], epoch))
    invocation = await ledger.get(one)
    assert (took[0] is None) == (cancelled.state is State.CANCELLED)
    assert invocation.cancel_requested or invocation.state is State.CANCELLED


async def test_a_passed_deadline_ends_what_waits(ledger: Ledger) -> None:
    """It expires with a dead letter; what has time left, or no deadline, or is at a node, stays."""
    late, early, endless, out = await accepted(
        ledger, new(expires_at=AT + 5), new(expires_at=AT + 50), new(), new(expires_at=AT + 5)
    )
    await released(ledger, [out])
    assert await ledger.expire([late, early, endless, out, "unknown"], AT + 5) == [late]
    invocation = await ledger.get(late)
    assert (invocation.state, invocation.ended_at) == (State.EXPIRED, AT + 5)
    assert invocation.outcome is not None
    (dead,), _ = await ledger.dead_letters(tenant="default")
    assert (dead.invocation_id, dead.reason, dead.ending, dead.error) == (
        late,
        "deadline",
        "expired",
        invocation.outcome.error,
    )
    assert await ledger.expire([late], AT + 6) == []


async def dead(ledger: Ledger, number: int, *, reason: str = "permanent", tenant: str = "default") -> list[str]:
    """So many dead letters."""
    ids = await accepted(ledger, *(new(tenant=tenant) for _ in range(number)))
    await released(ledger, ids)
    await ledger.settle([failure(one, reason=reason) for one in ids])
    return ids


async def test_dead_letters_are_paged_newest_first(ledger: Ledger) -> None:
    """Every one of the tenant's is seen once, of the asked reason only."""
    ids = await dead(ledger, 5)
    await dead(ledger, 1, reason="poison")
    await dead(ledger, 1, tenant="acme")
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await ledger.dead_letters(
            tenant="default", where=DeadFilter(reason="permanent"), cursor=cursor, limit=2
        )
        seen += [one.invocation_id for one in page]
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert len((await ledger.dead_letters(tenant=None))[0]) == 7


async def test_a_replay_is_linked_to_its_dead_letter(ledger: Ledger) -> None:
    """The letter says what came of it; replaying what left no letter is no error."""
    (one,) = await dead(ledger, 1)
    (again,) = await accepted(ledger, new(replay_of=one))
    await accepted(ledger, new(replay_of="no-letter"))
    (letter,), _ = await ledger.dead_letters(tenant="default")
    assert letter.replayed_as == again
    assert (await ledger.get(again)).replay_of == one


async def test_a_refused_replay_leaves_its_dead_letter_open(ledger: Ledger) -> None:
    """The link is of the same commit as the new row: no row, no link."""
    (one,) = await dead(ledger, 1)
    await accepted(ledger, new(idempotency_key="taken"))
    with pytest.raises(IdempotencyConflict):
        await ledger.accept([new(replay_of=one, idempotency_key="taken", digest="another")])
    (letter,), _ = await ledger.dead_letters(tenant="default")
    assert letter.replayed_as is None


async def test_discarding_keeps_the_history(ledger: Ledger) -> None:
    """The letter goes, its Invocation stays."""
    first, second = await dead(ledger, 2)
    assert await ledger.discard_dead([first, "unknown"]) == 1
    assert [one.invocation_id for one in (await ledger.dead_letters(tenant=None))[0]] == [second]
    assert (await ledger.get(first)).state is State.FAILED


async def test_dead_letters_are_found_and_counted_by_more_than_their_reason(ledger: Ledger) -> None:
    """By tool, project, time, id and whether anybody answered; another tenant's are nowhere."""
    first, second = await dead(ledger, 2)
    (poison,) = await dead(ledger, 1, reason="poison")
    (theirs,) = await dead(ledger, 1, tenant="acme")
    await accepted(ledger, new(replay_of=first))

    async def found(where: DeadFilter) -> list[str]:
        return [one.invocation_id for one in (await ledger.dead_letters(tenant="default", where=where))[0]]

    (letter,), _ = await ledger.dead_letters(tenant="default", where=DeadFilter(id=second))
    everyone = [poison, second, first]
    assert letter.invocation_id == second
    assert await found(DeadFilter(tool=letter.tool, project=letter.project)) == everyone
    assert await found(DeadFilter(tool="other.tool")) == await found(DeadFilter(project="other")) == []
    assert await found(DeadFilter(until=letter.ended_at)) == everyone
    assert await found(DeadFilter(until=letter.ended_at - 1)) == await found(DeadFilter(id=theirs)) == []
    assert await found(DeadFilter(is_unanswered=True)) == [poison, second]
    assert await ledger.dead_counts("default") == [DeadCount("permanent", 2, 1), DeadCount("poison", 1, 0)]
    assert await ledger.dead_counts("default", DeadFilter(reason="poison")) == [DeadCount("poison", 1, 0)]
