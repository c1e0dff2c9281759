"""The protocol of release, lease, inventory and settlement, step by step on a real ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.ledger.errors import EpochLost
from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, Story, endings, held
from tasks.errors import LedgerDown
from tasks.invocation import Invocation, Lane, State
from tasks.node import LEASE_TTL_S, JoinRequest, LeaveRequest, NodeState, Offer, Phase, Ref, RenewRequest
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.tool import Declared, OnNodeLoss, ToolPolicy

if TYPE_CHECKING:
    from pathlib import Path

DONE = Outcome("succeeded", result_json='{"content":[]}')
REFUSED = Outcome("failed", error=ErrorInfo("server_unavailable", "not up", Failure.NOT_STARTED))


async def test_a_call_is_released_addressed_and_settled_once(story: Story) -> None:
    """The delivery names node, process and term; a second report of its end changes nothing."""
    node = await story.join("a1")
    call = await story.accept()
    (delivery,) = await story.release()
    assert (delivery.node, delivery.incarnation, delivery.term, delivery.fence) == ("a1", node.incarnation, 1, 1)
    await story.finish("a1", delivery, DONE)
    await story.finish("a1", delivery, Outcome("failed", error=REFUSED.error))
    ended = await story.get(call.id)
    assert (ended.state, ended.tries, endings(ended)) == (State.SUCCEEDED, 1, ["succeeded"])


async def test_another_nodes_word_is_not_taken(story: Story) -> None:
    """Only the node an attempt was released to can settle it."""
    await story.join("a1")
    call = await story.accept()
    (delivery,) = await story.release()
    await story.finish("a2", delivery, DONE)
    assert (await story.get(call.id)).state is State.RELEASED


async def test_a_lost_delivery_is_released_again_after_two_inventories(story: Story) -> None:
    """Missing once: voided. Missing again, the void heard: released anew, at no cost in tries."""
    node = await story.join("a1")
    await story.renew(node)
    call = await story.accept()
    (lost,) = await story.release()
    story.clock.advance(2)
    assert (await story.renew(node)).void == ()
    story.clock.advance(2)
    assert (await story.renew(node)).void == (Ref(invocation=lost.invocation, fence=1),)
    assert await story.release() == []
    await story.renew(node)
    (again,) = await story.release()
    assert (again.invocation, again.fence) == (lost.invocation, 2)
    assert (await story.get(call.id)).tries == 0


async def test_a_void_in_a_lost_reply_proves_nothing(story: Story) -> None:
    """The node may still start what it was never told to leave; releasing again could run it twice."""
    node = await story.join("a1")
    await story.renew(node)
    await story.accept(UNSAFE)
    await story.release()
    for _ in range(5):
        story.clock.advance(2)
        await story.renew(node, is_heard=False)
    assert await story.release() == []


async def test_a_late_delivery_of_a_voided_fence_is_stopped_by_the_next_renewal(story: Story) -> None:
    """It came after all and waits at the node: the inventory says so, and it stays the one attempt."""
    node = await story.join("a1")
    await story.renew(node)
    await story.accept(UNSAFE)
    (late,) = await story.release()
    for _ in range(2):
        story.clock.advance(2)
        reply = await story.renew(node)
    assert reply.void
    reply = await story.renew(node, held(late, Phase.RUNNING))
    assert reply.void == ()
    await story.finish("a1", late, DONE)
    assert (await story.get(late.invocation)).state is State.SUCCEEDED


async def test_a_lapsed_lease_sends_safe_work_elsewhere_at_once(story: Story) -> None:
    """Another node runs it; what the first one says later is refused."""
    await story.join("a1")
    call = await story.accept(SAFE)
    (first,) = await story.release()
    other = await story.join("b1")
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.renew(other)
    story.clock.advance(5)
    await story.renew(other)
    (second,) = await story.release()
    assert (second.node, second.fence) == ("b1", 2)
    await story.finish("a1", first, DONE)
    assert (await story.get(call.id)).state is State.RELEASED
    await story.finish("b1", second, DONE)
    assert (await story.get(call.id)).state is State.SUCCEEDED


async def test_unsafe_work_of_a_lapsed_node_waits_and_is_then_lost(story: Story) -> None:
    """It may have started, so it is never run again by itself; its end says that nobody knows."""
    await story.join("a1")
    call = await story.accept(UNSAFE)
    await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    assert (await story.get(call.id)).state is State.UNREACHABLE
    await story.silence(60)
    ended = await story.get(call.id)
    assert (ended.state, ended.outcome and ended.outcome.error and ended.outcome.error.code) == (
        State.LOST,
        "node_lost",
    )


async def test_unsafe_work_goes_on_when_its_node_comes_back(story: Story) -> None:
    """A minute without network costs nothing: same fence, same attempt, settled by the same node."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    reply = await story.renew(node, held(delivery, Phase.RUNNING))
    assert (reply.granted, reply.term, reply.void) == (True, 2, ())
    assert (await story.get(call.id)).state is State.RUNNING
    await story.finish("a1", delivery, DONE)
    assert (await story.get(call.id)).state is State.SUCCEEDED


async def test_a_delivery_still_in_the_queue_of_a_returned_node_is_void_by_its_term(story: Story) -> None:
    """The node does not hold it and has heard that its term is over, so it surely never starts: released again."""
    node = await story.join("a1")
    await story.accept(UNSAFE)
    (stuck,) = await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.renew(node)
    assert await story.release() == []
    await story.renew(node)
    (again,) = await story.release()
    assert (stuck.term, again.term, again.fence) == (1, 2, 2)


async def test_superseded_work_is_voided_on_the_node_that_still_runs_it(story: Story) -> None:
    """A zombie is told to stop, and its outcome is refused."""
    node = await story.join("a1")
    call = await story.accept(SAFE)
    (old,) = await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    reply = await story.renew(node, held(old, Phase.RUNNING))
    assert reply.void == (Ref(invocation=old.invocation, fence=1),)
    await story.finish("a1", old, DONE)
    assert (await story.get(call.id)).state is not State.SUCCEEDED


async def test_a_restarted_node_says_what_it_had_started(story: Story) -> None:
    """From its journal: the started one is lost (unsafe), the other never started and waits again."""
    node = await story.join("a1")
    started, untouched = await story.accept(UNSAFE), await story.accept(UNSAFE)
    deliveries = {d.invocation: d for d in await story.release()}
    broken = deliveries[started.id]
    await story.join(
        "a1", resumes=node.incarnation, interrupted=(Ref(invocation=broken.invocation, fence=broken.fence),)
    )
    assert (await story.get(started.id)).state is State.LOST
    assert ((await story.get(untouched.id)).state, (await story.get(untouched.id)).tries) == (State.WAITING, 0)


async def test_an_outcome_in_the_journal_survives_the_restart(story: Story) -> None:
    """Finished before the crash, reported after it: it counts."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    ref = Ref(invocation=delivery.invocation, fence=delivery.fence)
    await story.join("a1", resumes=node.incarnation, finished=(ref,))
    await story.finish("a1", delivery, DONE)
    assert (await story.get(call.id)).state is State.SUCCEEDED


async def test_a_node_without_its_journal_may_have_started_everything(story: Story) -> None:
    """An empty disk proves nothing: unsafe work is lost, not repeated."""
    await story.join("a1")
    call = await story.accept(UNSAFE)
    await story.release()
    await story.join("a1")
    assert (await story.get(call.id)).state is State.LOST


async def test_an_older_incarnation_is_told_to_go(story: Story) -> None:
    """Two processes of one name: the newer one counts."""
    old = await story.join("a1")
    await story.join("a1", resumes=old.incarnation)
    assert (await story.renew(old)).granted is False


async def test_a_failure_is_tried_again_with_backoff_and_then_kept_as_dead(story: Story) -> None:
    """Three tries, each with its own fence; the third failure ends it with its reason."""
    node = await story.join("a1")
    call = await story.accept(SAFE)
    for fence in (1, 2, 3):
        story.clock.advance(3)
        await story.renew(node)
        (delivery,) = await story.release()
        assert delivery.fence == fence
        await story.finish("a1", delivery, REFUSED)
    ended = await story.get(call.id)
    dead, _ = await story.core.stores.ledger.dead_letters(tenant="default")
    assert (ended.state, ended.tries) == (State.FAILED, 3)
    assert [letter.reason for letter in dead] == ["retries_exhausted"]


async def test_a_drained_node_hands_back_what_it_did_not_start(story: Story) -> None:
    """It waits again, at no cost in tries, and the node is gone."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    returned = (Ref(invocation=delivery.invocation, fence=delivery.fence),)
    await story.core.desk.leave("a1", LeaveRequest(incarnation=node.incarnation, returned=returned))
    again = await story.get(call.id)
    assert (again.state, again.tries, endings(again)) == (State.WAITING, 0, ["handed_back"])
    assert story.core.roster.find("a1") is None


async def test_what_a_draining_node_hands_back_goes_elsewhere_at_once(story: Story) -> None:
    """It says so with a renewal, long before it leaves; said again, because the reply was lost, it changes nothing."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.join("b1")
    returned = (Ref(invocation=delivery.invocation, fence=delivery.fence),)
    draining = RenewRequest(incarnation=node.incarnation, is_draining=True, returned=returned)
    await story.core.desk.renew("a1", draining)
    (again,) = await story.release()
    assert (again.node, again.fence) == ("b1", delivery.fence + 1)
    await story.core.desk.renew("a1", draining)
    now = await story.get(call.id)
    assert (now.state, now.tries, endings(now)) == (State.RELEASED, 0, ["handed_back", None])


async def test_a_cordoned_node_gets_nothing_new(story: Story) -> None:
    """Its lease stays good, its work goes on, and calls wait."""
    await story.join("a1")
    await story.core.desk.set_state("a1", NodeState.CORDONED)
    await story.accept()
    assert await story.release() == []
    await story.core.desk.set_state("a1", NodeState.ACTIVE)
    assert len(await story.release()) == 1


async def test_credit_is_slots_and_prefetch(story: Story) -> None:
    """What does not fit waits in the ledger, not at a node; an end makes room for one."""
    await story.join("a1", slots=2)
    for _ in range(10):
        await story.accept()
    first = await story.release()
    assert len(first) == 4
    assert await story.release() == []
    await story.finish("a1", first[0], DONE)
    assert len(await story.release()) == 1


async def test_a_dispatcher_that_lost_its_epoch_releases_nothing(story: Story) -> None:
    """Another leader took over: the ledger refuses the older epoch's releases, and nothing is sent."""
    node = await story.join("a1")
    call = await story.accept()
    assert story.core.dispatcher.epoch is not None
    await story.core.stores.ledger.renew_epoch("story", story.core.dispatcher.epoch, 0.0)
    await story.core.stores.ledger.take_epoch("another", 1e9)
    await story.renew(node)
    with pytest.raises(EpochLost):
        await story.release()
    assert (await story.get(call.id)).state is State.WAITING


async def test_an_expired_deadline_ends_a_waiting_call(story: Story) -> None:
    """Nothing had room in time: expired, with a dead letter, and never released."""
    await story.join("a1")
    await story.core.desk.set_state("a1", NodeState.CORDONED)
    call = await story.accept(expires_at=story.clock.wall_s() + 5)
    story.clock.advance(6)
    await story.core.desk.set_state("a1", NodeState.ACTIVE)
    assert await story.release() == []
    assert (await story.get(call.id)).state is State.EXPIRED


async def test_a_cancel_is_repeated_by_every_renewal(story: Story) -> None:
    """The prompt word may be lost with Redis; the renewal says it again until the call ended."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.core.stores.ledger.cancel(call.id, None, story.clock.wall_s())
    story.core.attempts.cancel_requested(call.id, delivery.fence)
    for _ in range(2):
        reply = await story.renew(node, held(delivery, Phase.RUNNING))
        assert reply.cancel == (Ref(invocation=call.id, fence=1),)
    await story.finish("a1", delivery, Outcome("cancelled"))
    assert (await story.renew(node)).cancel == ()


async def test_a_join_whose_reply_was_lost_loses_nothing(story: Story) -> None:
    """The same process asks again: what it finished before still counts."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    request = JoinRequest(
        incarnation="a1/restarted",
        offer=Offer(name="a1", pool="east", slots={Lane.TOOLS: 2}, tools=TOOLS),
        resumes=node.incarnation,
        finished=(Ref(invocation=delivery.invocation, fence=delivery.fence),),
    )
    await story.core.desk.join(request)
    await story.core.desk.join(request)
    await story.finish("a1", delivery, DONE)
    assert (await story.get(call.id)).state is State.SUCCEEDED


async def test_a_stalled_registry_lapses_nobody(story: Story) -> None:
    """Time in which this process did not run is not the nodes' silence."""
    await story.join("a1")
    await story.lapse(1)
    story.clock.advance(60)
    await story.core.desk.lapse()
    assert story.core.roster.get("a1").state is NodeState.ACTIVE


async def test_a_new_orchestrator_gives_every_node_a_new_lease(story: Story, tmp_path: Path) -> None:
    """However long the old one was gone: the node's first renewal finds its attempt as it was."""
    node = await story.join("a1")
    call = await story.accept(SAFE)
    (delivery,) = await story.release()
    await story.end()
    story.clock.advance(1000)
    next_one = await Story.begin(tmp_path, story.clock)
    try:
        await next_one.lapse(LEASE_TTL_S - 0.1)
        reply = await next_one.renew(node, held(delivery, Phase.RUNNING))
        assert (reply.granted, reply.term, reply.void) == (True, 1, ())
        await next_one.finish("a1", delivery, DONE)
        ended = await next_one.get(call.id)
        assert (ended.state, ended.fence, endings(ended)) == (State.SUCCEEDED, 1, ["succeeded"])
    finally:
        await next_one.end()


async def test_a_lapse_that_the_ledger_refused_is_tried_again(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database was away just then: the attempts of the lost node are settled at the next look."""
    await story.join("a1")
    call = await story.accept(UNSAFE)
    await story.release()
    settle = story.core.stores.ledger.settle

    async def down(_wanted: object) -> list[object]:
        raise LedgerDown("gone for a moment")

    monkeypatch.setattr(story.core.stores.ledger, "settle", down)
    with pytest.raises(LedgerDown):
        await story.lapse(LEASE_TTL_S + 1)
    monkeypatch.setattr(story.core.stores.ledger, "settle", settle)
    await story.core.desk.lapse()
    assert (await story.get(call.id)).state is State.UNREACHABLE


async def test_what_a_lost_answer_left_behind_is_looked_up(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read failed right after a settlement: the call waits in the ledger, and soon in memory too."""
    await story.join("a1")
    await story.accept(SAFE)
    (delivery,) = await story.release()
    get = story.core.stores.ledger.get
    answers = iter([get, None])

    async def flaky(invocation_id: str, tenant: str | None = None) -> Invocation:
        if next(answers, None) is None:
            raise LedgerDown("gone for a moment")
        return await get(invocation_id, tenant)

    monkeypatch.setattr(story.core.stores.ledger, "get", flaky)
    await story.finish("a1", delivery, REFUSED)
    monkeypatch.setattr(story.core.stores.ledger, "get", get)
    assert await story.release() == []
    await story.core.doubts.resolve()
    assert [again.fence for again in await story.release()] == [2]


async def test_one_nodes_annotation_is_not_enough_to_repeat(story: Story) -> None:
    """Two nodes disagree whether a tool is safe: then it is not."""
    await story.join("b1", tools=tuple(tool.model_copy(update={"policy": ToolPolicy(is_safe=True)}) for tool in TOOLS))
    await story.join("a1")
    assert story.core.roster.declared(SAFE) == Declared(is_safe=True, on_node_loss=OnNodeLoss.RERUN)
    assert story.core.roster.declared(UNSAFE) == Declared()
