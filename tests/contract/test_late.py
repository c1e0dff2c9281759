"""What comes late from a node, and what it may not undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, held
from tasks.errors import Late
from tasks.invocation import Lane, State
from tasks.node import LEASE_TTL_S, JoinRequest, NodeState, Offer, Phase, Ref, RenewRequest
from tasks.outcome import Outcome

if TYPE_CHECKING:
    from orchestrator.testing.protocol import PlayedNode, Story
    from tasks.node import Held, RenewReply

DONE = Outcome("succeeded", result_json='{"content":[]}')


async def test_an_inventory_written_before_a_call_came_does_not_give_it_up(story: Story) -> None:
    """The lease lapsed meanwhile, the node is back and runs it; then the old renewal arrives."""
    node = await story.join("a1")
    await _renewal(story, node, number=1)
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    running = held(delivery, Phase.RUNNING)
    await _renewal(story, node, running, number=3)
    with pytest.raises(Late, match="a later renewal"):
        await _renewal(story, node, number=2)
    await _renewal(story, node, running, number=4)
    assert (await story.get(call.id)).state is State.RUNNING
    assert await story.release() == []


async def test_an_inventory_that_crosses_the_lapse_gives_nothing_up(story: Story) -> None:
    """Written while the lease was good, read after it was over: in between the node may have started it."""
    node = await story.join("a1")
    await _renewal(story, node, number=1)
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    await _renewal(story, node, number=2)
    assert await story.release() == []
    await _renewal(story, node, held(delivery, Phase.RUNNING), number=3)
    assert (await story.get(call.id)).state is State.RUNNING


async def test_a_late_join_undoes_nothing(story: Story) -> None:
    """The process was admitted by a later try, works, and keeps its token, its key and its calls."""
    offer = Offer(name="a1", pool="east", slots={Lane.TOOLS: 2, Lane.AGENTS: 1}, tools=TOOLS)
    join = JoinRequest(incarnation="a1/1", offer=offer)
    await story.core.desk.join(join.model_copy(update={"number": 2}))
    token_digest = story.core.roster.get("a1").token_digest
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.core.settler.running([(delivery.invocation, delivery.fence)], node="a1")
    for number in (1, 2):
        with pytest.raises(Late, match="a later join"):
            await story.core.desk.join(join.model_copy(update={"number": number}))
    assert story.core.roster.get("a1").token_digest == token_digest
    assert (await story.get(call.id)).state is State.RUNNING


async def test_a_join_that_is_tried_again_is_admitted(story: Story) -> None:
    """The reply to the first was lost: the process has no key, so nothing that was released to it started."""
    offer = Offer(name="a1", pool="east", slots={Lane.TOOLS: 2, Lane.AGENTS: 1}, tools=TOOLS)
    join = JoinRequest(incarnation="a1/1", offer=offer)
    await story.core.desk.join(join.model_copy(update={"number": 1}))
    call = await story.accept(UNSAFE)
    await story.release()
    await story.core.desk.join(join.model_copy(update={"number": 2}))
    assert [again.fence for again in await story.release()] == [2]
    assert (await story.get(call.id)).tries == 0


async def test_what_a_journal_says_has_ended_is_not_lost(story: Story) -> None:
    """The process before cannot be vouched for; what it finished is on the stream, under its own word."""
    await story.join("a1")
    done, gone = await story.accept(UNSAFE), await story.accept(UNSAFE)
    deliveries = {one.invocation: one for one in await story.release()}
    finished = (Ref(invocation=done.id, fence=1),)
    await story.join("a1", resumes="another", finished=finished)
    assert (await story.get(gone.id)).state is State.LOST
    await story.finish("a1", deliveries[done.id], DONE)
    assert (await story.get(done.id)).state is State.SUCCEEDED


async def test_a_cordon_outlasts_a_lapse(story: Story) -> None:
    """An operator said it; a lost minute of network does not unsay it."""
    node = await story.join("a1")
    await story.core.desk.set_state("a1", NodeState.CORDONED)
    await story.lapse(LEASE_TTL_S + 0.1)
    assert story.core.roster.get("a1").state is NodeState.LOST
    await story.renew(node)
    assert story.core.roster.get("a1").state is NodeState.CORDONED


async def test_an_outcome_is_not_acknowledged_while_its_row_is_looked_up(story: Story) -> None:
    """Memory and ledger may differ after a commit without an answer: the node has to say it again."""
    await story.join("a1")
    call = await story.accept(SAFE)
    (delivery,) = await story.release()
    story.core.attempts.remove(call.id, 1)
    story.core.doubts.note(call.id)
    assert await story.said("a1", delivery, DONE) == []
    await story.core.doubts.resolve()
    assert len(await story.said("a1", delivery, DONE)) == 1
    assert (await story.get(call.id)).state is State.SUCCEEDED


async def test_a_renewal_says_nothing_of_what_is_looked_up(story: Story) -> None:
    """Neither `void`, which would stop it, nor `settled`, which would forget its outcome."""
    node = await story.join("a1")
    await story.accept(UNSAFE)
    await story.accept(UNSAFE)
    first, second = await story.release()
    for delivery in (first, second):
        story.core.attempts.remove(delivery.invocation, delivery.fence)
        story.core.doubts.note(delivery.invocation)
    reply = await _renewal(story, node, held(first, Phase.RUNNING), held(second, Phase.FINISHED), number=1)
    assert (reply.void, reply.settled) == ((), ())


async def _renewal(story: Story, node: PlayedNode, *inventory: Held, number: int) -> RenewReply:
    request = RenewRequest(incarnation=node.incarnation, number=number, inventory=inventory, heard=node.heard)
    reply = await story.core.desk.renew(node.name, request)
    node.heard = reply.number
    return reply
