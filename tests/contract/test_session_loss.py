"""`on_node_loss: resume`: a lost node's session goes on elsewhere, under a new fence, or is nobody's to repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.settling.capsules import Capsules
from orchestrator.settling.verdict import HANDED_ON
from orchestrator.testing.protocol import UNSAFE, endings
from tasks.capsule import head_of
from tasks.errors import NotFound
from tasks.invocation import Lane, State
from tasks.ledger_events import Finished, Progress, Saved
from tasks.node import LEASE_TTL_S
from tasks.outcome import SPENT_MIDWAY, ErrorInfo, Failure, Outcome
from tasks.spend import Spend
from tasks.tool import OnNodeLoss, ToolPolicy, ToolSpec

if TYPE_CHECKING:
    from orchestrator.testing.protocol import Story
    from tasks.envelope import Delivery

GRACE_S = 180.0
AGENT = (
    ToolSpec(
        server="files",
        definition={"name": "write"},
        policy=ToolPolicy(lane=Lane.AGENTS, on_node_loss=OnNodeLoss.RESUME),
    ),
)


def _capsules(story: Story) -> Capsules:
    stores = story.core.stores
    return Capsules(books=stores.ledger, attempts=story.core.attempts, blobs=stores.blobs)


async def _saves(story: Story, delivery: Delivery, number: int, *, node: str | None = None, of: str = "") -> str:
    """Its node saves a capsule, of this call unless told otherwise; the digest."""
    digest = await story.core.stores.blobs.put(head_of(of or delivery.invocation) + str(number).encode())
    assert delivery.node is not None
    event = Saved(delivery.invocation, delivery.fence, number, digest)
    await _capsules(story).saved([(node or delivery.node, event)])
    return digest


async def _dies(story: Story) -> None:
    """The lease is over, and the grace too."""
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.silence(GRACE_S)


async def _begun(story: Story, *, is_running: bool = True) -> Delivery:
    await story.join("a1", tools=AGENT)
    await story.accept(UNSAFE)
    (delivery,) = await story.release()
    if is_running:
        await story.core.settler.running([(delivery.invocation, delivery.fence)], node="a1")
    return delivery


async def test_a_lost_session_goes_on_under_a_new_fence(story: Story) -> None:
    """Only after the grace; the old attempt is superseded, and the new delivery names what was saved last."""
    first = await _begun(story)
    await _saves(story, first, 1)
    saved = await _saves(story, first, 2)
    await story.lapse(LEASE_TTL_S + 0.1)
    assert (await story.get(first.invocation)).state is State.UNREACHABLE
    await story.silence(GRACE_S)
    await story.join("b1", tools=AGENT)
    (second,) = await story.release()
    assert (second.invocation, second.fence, second.node, second.capsule) == (first.invocation, 2, "b1", saved)
    view = await story.get(first.invocation)
    assert (endings(view), view.tries) == (["superseded", None], 0)


async def test_a_superseded_node_saves_nothing_more(story: Story) -> None:
    """It may not know yet; what the next one goes on from stays what it is."""
    first = await _begun(story)
    saved = await _saves(story, first, 1)
    await _dies(story)
    late = await _saves(story, first, 2)
    await story.join("b1", tools=AGENT)
    (second,) = await story.release()
    await _saves(story, first, 3)
    assert (second.capsule, (await story.get(first.invocation)).capsule) == (saved, saved)
    assert await story.core.stores.blobs.get(late)  # goes when no row has named it for a day


async def test_a_session_that_nobody_saved_is_not_repeated(story: Story) -> None:
    """It had started: what it did is unknown, so a person is asked."""
    first = await _begun(story)
    await _dies(story)
    ended = await story.get(first.invocation)
    assert (ended.state, endings(ended)) == (State.LOST, ["lost"])


async def test_a_run_that_never_said_that_it_began_begins_elsewhere(story: Story) -> None:
    """It waited in the lost node's queue, as far as anybody knows."""
    first = await _begun(story, is_running=False)
    await _dies(story)
    await story.join("b1", tools=AGENT)
    (second,) = await story.release()
    assert (second.invocation, second.fence, second.capsule) == (first.invocation, 2, None)


async def test_a_node_that_comes_back_without_its_runs_goes_on_at_once(story: Story) -> None:
    """Nobody has to wait for a grace: its process is known to be dead. Twice, and the call is poison."""
    first = await _begun(story)
    saved = await _saves(story, first, 1)
    await story.join("a1", tools=AGENT)
    (second,) = await story.release()
    assert (second.fence, second.node, second.capsule) == (2, "a1", saved)
    await story.core.settler.running([(second.invocation, second.fence)], node="a1")
    await story.join("a1", tools=AGENT)
    ended = await story.get(first.invocation)
    assert ended.state is State.FAILED
    assert ended.outcome is not None
    assert ended.outcome.error is not None
    assert ended.outcome.error.failure is Failure.POISON


async def test_what_is_replaced_is_released_at_once(story: Story) -> None:
    """Every few seconds a new one: they must not pile up for a day. Another's blob is never touched."""
    first = await _begun(story)
    blobs = story.core.stores.blobs
    old = await _saves(story, first, 1)
    anothers = await _saves(story, first, 2, of="another-call")
    assert not await _has(story, old)
    result = await blobs.put(b'{"content":[]}')
    await _capsules(story).saved([("a1", Saved(first.invocation, first.fence, 3, result))])
    await _saves(story, first, 4)
    assert await _has(story, anothers)
    assert await _has(story, result)


async def test_another_node_cannot_save_for_it(story: Story) -> None:
    """Nor a fence that was never released."""
    first = await _begun(story)
    await _saves(story, first, 1, node="b1")
    await _capsules(story).saved([("a1", Saved(first.invocation, 7, 1, "0" * 64))])
    assert (await story.get(first.invocation)).capsule is None


@pytest.mark.parametrize("code", sorted(HANDED_ON))
async def test_a_session_that_its_node_ended_goes_on_at_once(story: Story, code: str) -> None:
    """The node says itself that it stopped, drained or cut off: nobody has to wait for a grace."""
    first = await _begun(story)
    saved = await _saves(story, first, 1)
    await story.join("b1", tools=AGENT)
    stopped = Outcome("failed", error=ErrorInfo(code, "the node had to stop", Failure.MAYBE_STARTED))
    at = story.clock.wall_s()
    await story.core.settler.finished([("a1", Finished(first.invocation, first.fence, at, at, stopped))])
    (second,) = await story.release()
    assert (second.fence, second.capsule) == (2, saved)


async def test_who_goes_on_knows_what_was_spent_and_when_to_stop(story: Story) -> None:
    """All that the lost attempt is booked with counts against its limit, also what it spent after its last capsule."""
    first = await _begun(story)
    assert (first.handover_s, first.spent_usd) == (GRACE_S, None)
    await _saves(story, first, 1)
    spent = Progress(first.invocation, first.fence, 0.0, spent=(Spend("glm-5", 2, 10, 5, cost_usd=0.25),))
    await story.core.settler.spent([("a1", spent)])
    await _dies(story)
    await story.join("b1", tools=AGENT)
    (second,) = await story.release()
    assert (second.capsule is not None, second.spent_usd) == (True, 0.25)


async def test_nobody_is_told_to_stop_what_nobody_else_would_have(story: Story) -> None:
    """A tool without sessions may run on while its node is cut off: its outcome is still wanted."""
    await story.join("a1")
    await story.accept(UNSAFE)
    (delivery,) = await story.release()
    assert delivery.handover_s is None


def _midway(story: Story, delivery: Delivery) -> Finished:
    """It met a quota when it had begun to do things."""
    error = ErrorInfo(SPENT_MIDWAY, "spent for another 60 s", Failure.WAIT_UNTIL, 60.0)
    at = story.clock.wall_s()
    return Finished(delivery.invocation, delivery.fence, at, at, Outcome("failed", error=error))


async def test_a_session_that_waits_for_a_quota_goes_on_when_it_is_over(story: Story) -> None:
    """Not sooner, with what was saved, and at no cost in tries, however often."""
    delivery, saved = await _begun(story), ""
    for fence in range(1, 12):
        saved = await _saves(story, delivery, fence)
        await story.core.settler.finished([("a1", _midway(story, delivery))])
        assert await story.release() == []
        story.clock.advance(60.1)
        await story.join("a1", tools=AGENT)
        (delivery,) = await story.release()
        assert (delivery.fence, delivery.capsule) == (fence + 1, saved)
    view = await story.get(delivery.invocation)
    assert (view.state, view.tries) == (State.RELEASED, 0)


async def test_a_session_that_waits_and_that_nobody_has_is_not_begun_anew(story: Story) -> None:
    """All that it did would be done twice: the call fails, and says so."""
    delivery = await _begun(story)
    await story.core.settler.finished([("a1", _midway(story, delivery))])
    ended = await story.get(delivery.invocation)
    assert ended.state is State.FAILED
    assert ended.outcome is not None
    assert ended.outcome.error is not None
    assert (ended.outcome.error.code, ended.outcome.error.failure) == (SPENT_MIDWAY, Failure.PERMANENT)
    assert "replay the call" in ended.outcome.error.message


async def _has(story: Story, digest: str) -> bool:
    try:
        await story.core.stores.blobs.size_bytes(digest)
    except NotFound:
        return False
    return True
