"""Releasing, claiming and starting: compare-and-set on the fence, under the leader's epoch."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, HOLDER, accepted, again, new, release_of, released, success, unreachable
from orchestrator.ledger.values import Started
from tasks.invocation import State


async def test_a_release_carries_what_the_delivery_needs(ledger: Ledger) -> None:
    """The released row has the call's arguments, limits and trace, and the new fence."""
    row = new(project="shop", arguments_json='{"n":1}', timeout_s=9.0, trace_id="0" * 32, meta_json="{}")
    await ledger.accept([row])
    (one,) = await released(ledger, [row.invocation.id])
    assert (one.fence, one.tool, one.project, one.arguments_json) == (1, "git.git_log", "shop", '{"n":1}')
    assert (one.timeout_s, one.trace_id, one.meta_json, one.tries, one.tenant) == (9.0, "0" * 32, "{}", 0, "default")


async def test_a_release_opens_an_attempt(ledger: Ledger) -> None:
    """The history shows where it went, when and why."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    invocation = await ledger.get(one)
    (attempt,) = invocation.attempts
    assert (invocation.state, invocation.fence) == (State.RELEASED, 1)
    assert (attempt.fence, attempt.node, attempt.incarnation, attempt.released_at) == (1, "n1", "inc-1", AT)
    assert attempt.reasons == ("least busy: n1 (0 of 8 slots used)",)
    assert attempt.ended_at is None


async def test_only_one_of_racing_releases_takes(ledger: Ledger) -> None:
    """Twenty releases of one Invocation in one group: one fence, one attempt."""
    (one,) = await accepted(ledger, new())
    answers = await asyncio.gather(*(released(ledger, [one], node=f"n{number}") for number in range(20)))
    assert sum(len(took) for took in answers) == 1
    assert len((await ledger.get(one)).attempts) == 1


async def test_a_release_at_an_old_fence_is_lost(ledger: Ledger) -> None:
    """Whoever decided on an old view releases nothing; its neighbours in the call are released."""
    first, second = await accepted(ledger, new(), new())
    await released(ledger, [first])
    await ledger.settle([again(first)])
    epoch = await ledger.take_epoch(HOLDER, 10.0)
    assert epoch is not None
    answers = await ledger.release([release_of(first, fence=0), release_of(second), release_of("unknown")], epoch)
    assert [None if one is None else one.invocation_id for one in answers] == [None, second, None]


async def test_an_old_leader_releases_nothing(ledger: Ledger) -> None:
    """Once another orchestrator leads, the old epoch is refused, also beside a good one in one group."""
    first, second = await accepted(ledger, new(), new())
    old = await ledger.take_epoch("orchestrator-1", 0.0)
    current = await ledger.take_epoch("orchestrator-2", 5.0)
    assert old is not None
    assert current == old + 1
    answers = await asyncio.gather(
        ledger.release([release_of(first)], old), ledger.release([release_of(second)], current), return_exceptions=True
    )
    assert isinstance(answers[0], EpochLost)
    assert (answers[0].epoch, answers[0].current) == (old, current)
    assert [one.id for one in await ledger.waiting()] == [first]


async def test_started_is_running(ledger: Ledger) -> None:
    """A node's word that the tool started is kept, with its time."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    await ledger.mark_started([Started(one, 1, "n1", AT + 1), Started("unknown", 1, "n1", AT)])
    invocation = await ledger.get(one)
    assert invocation.state is State.RUNNING
    assert invocation.attempts[0].started_at == AT + 1


@pytest.mark.parametrize(("fence", "node"), [(2, "n1"), (0, "n1"), (1, "n2")])
async def test_started_of_another_attempt_changes_nothing(ledger: Ledger, fence: int, node: str) -> None:
    """A start counts only at the current fence, from its node."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    await ledger.mark_started([Started(one, fence, node, AT + 1)])
    invocation = await ledger.get(one)
    assert invocation.state is State.RELEASED
    assert invocation.attempts[0].started_at is None


async def test_a_late_started_does_not_reopen(ledger: Ledger) -> None:
    """A start that arrives after the end is passed over."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    await ledger.settle([success(one)])
    ended = await ledger.get(one)
    await ledger.mark_started([Started(one, 1, "n1", AT + 9)])
    assert await ledger.get(one) == ended


async def test_a_node_that_comes_back_runs_on(ledger: Ledger) -> None:
    """Unreachable becomes running again at the same fence, and can then end."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    await ledger.settle([unreachable(one)])
    await ledger.mark_started([Started(one, 1, "n1", AT + 1)])
    assert (await ledger.get(one)).state is State.RUNNING
    (settled,) = await ledger.settle([success(one)])
    assert settled.took


async def test_a_late_bound_attempt_is_claimed_once(ledger: Ledger) -> None:
    """Of two nodes that took the same delivery, one may run it; the other learns that it may not."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one], node=None)
    answers = await asyncio.gather(
        ledger.claim("n1", "inc-1", 3, [(one, 1)]), ledger.claim("n2", "inc-9", 4, [(one, 1)])
    )
    assert sorted(map(len, answers)) == [0, 1]
    winner = "n1" if answers[0] else "n2"
    (attempt,) = (await ledger.get(one)).attempts
    assert attempt.node == winner
    (outstanding,) = await ledger.outstanding()
    assert (outstanding.node, outstanding.term) == (winner, 3 if winner == "n1" else 4)
    loser = "n2" if winner == "n1" else "n1"
    wanted = [success(one, node=loser), success(one, node=winner)]
    assert [settled.took for settled in await ledger.settle(wanted)] == [False, True]


async def test_a_repeated_claim_is_granted_to_the_same_incarnation_only(ledger: Ledger) -> None:
    """A node whose answer was lost may ask again; after its restart it may not."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one], node=None)
    assert await ledger.claim("n1", "inc-1", 1, [(one, 1)]) == [(one, 1)]
    assert await ledger.claim("n1", "inc-1", 1, [(one, 1)]) == [(one, 1)]
    assert await ledger.claim("n1", "inc-2", 2, [(one, 1)]) == []
    assert (await ledger.get(one)).attempts[0].incarnation == "inc-1"


async def test_only_the_current_fence_can_be_claimed(ledger: Ledger) -> None:
    """A delivery that was superseded, or that is not known, is not for anybody."""
    first, second = await accepted(ledger, new(), new())
    await released(ledger, [first, second], node=None)
    assert await ledger.claim("n1", "inc-1", 1, [(first, 2), ("unknown", 1), (second, 1), (first, 0)]) == [(second, 1)]


async def test_a_claimed_attempt_is_settled_by_its_node_only(ledger: Ledger) -> None:
    """Before its claim nobody but the orchestrator may end it; after it, the node that has it."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one], node=None)
    assert [s.took for s in await ledger.settle([success(one, node="n1")])] == [False]
    await ledger.claim("n1", "inc-1", 1, [(one, 1)])
    assert [s.took for s in await ledger.settle([success(one, node="n2"), success(one, node="n1")])] == [False, True]
