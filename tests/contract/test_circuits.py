"""Circuits through the whole core: what fails too often is passed by, probed, and used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.assembly import fleet_of, views_of
from orchestrator.health.breaker import RETRY_AFTER_S, THRESHOLD
from orchestrator.health.circuits import EAR_RETRY_S
from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, WHO, held
from tasks.health import BAD_IN_A_ROW
from tasks.invocation import State
from tasks.node import LEASE_TTL_S, Phase
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.tool import ToolSpec

if TYPE_CHECKING:
    from orchestrator.testing.protocol import PlayedNode, Story

DONE = Outcome("succeeded", result_json='{"content":[]}')
SAID_NO = Outcome("failed", error=ErrorInfo("tool_error", "no", Failure.TOOL_ERROR))
BROKEN = Outcome("failed", error=ErrorInfo("connection_lost", "it ended", Failure.MAYBE_STARTED))
BUSY = Outcome("failed", error=ErrorInfo("server_busy", "429", Failure.MAYBE_STARTED, retry_after_s=1.0))
HURRY = Outcome("failed", error=ErrorInfo("tool_timeout", "0.1 s", Failure.MAYBE_STARTED))
OWN_FAULT = Outcome("failed", error=ErrorInfo("node_error", "a defect", Failure.MAYBE_STARTED))


async def _fails(story: Story, outcome: Outcome, times: int = THRESHOLD) -> None:
    """So many calls in a row end so on a1."""
    for _ in range(times):
        await story.accept(UNSAFE)
        (delivery,) = await story.release()
        await story.finish("a1", delivery, outcome)
        story.clock.advance(0.01)


async def _due(story: Story, node: PlayedNode) -> None:
    """The circuit's time is over, and the node stayed."""
    for _ in range(int(RETRY_AFTER_S)):
        story.clock.advance(1.0)
        await story.renew(node)
    await story.core.circuits.look()


async def test_a_server_that_fails_five_times_is_passed_by_and_why_says_so(story: Story) -> None:
    """Calls wait; they are not refused, for it may come back."""
    await story.join("a1")
    await _fails(story, BROKEN)
    call = await story.accept(UNSAFE)
    assert await story.release() == []
    said = " ".join(story.core.dispatcher.why(call.id))
    assert "node a1 is passed by: its circuit is open after 5 failures in a row; a probe may go in 60 s" in said


async def test_a_broken_server_holds_up_no_other_one_on_its_node(story: Story) -> None:
    """Calls for it wait, first in line; calls for its neighbour are placed."""
    shop = ToolSpec(server="shop", definition={"name": "buy"})
    await story.join("a1", slots=20, tools=(*TOOLS, shop))
    await _fails(story, BROKEN)
    for _ in range(10):
        await story.accept(UNSAFE)
        await story.accept("shop.buy")
        story.clock.advance(0.01)
    assert {delivery.tool for delivery in await story.release()} == {"shop.buy"}
    assert len(story.outgoing.letters) == 10


async def test_another_node_takes_over_at_once(story: Story) -> None:
    """One broken server on one node stops nobody else."""
    await story.join("a1")
    await _fails(story, BROKEN)
    await story.join("b1")
    await story.accept(UNSAFE)
    (delivery,) = await story.release()
    assert delivery.node == "b1"


async def test_one_probe_decides(story: Story) -> None:
    """Of all that waits one call goes through; its success lets the others follow."""
    node = await story.join("a1")
    await _fails(story, BROKEN)
    for _ in range(3):
        await story.accept(UNSAFE)
    await _due(story, node)
    (probe,) = await story.release()
    assert await story.release() == []
    await story.finish("a1", probe, DONE)
    assert len(await story.release()) == 2


async def test_a_failed_probe_opens_it_for_another_minute(story: Story) -> None:
    """And the next one is due after that."""
    node = await story.join("a1")
    await _fails(story, BROKEN)
    for _ in range(2):
        await story.accept(UNSAFE)
    await _due(story, node)
    (probe,) = await story.release()
    await story.finish("a1", probe, BROKEN)
    assert await story.release() == []
    await _due(story, node)
    assert len(await story.release()) == 1


async def test_a_probe_that_was_cancelled_before_its_release_blocks_nobody(story: Story) -> None:
    """The ledger refuses to release it, so no end of it is ever told."""
    node = await story.join("a1")
    await _fails(story, BROKEN)
    gone = await story.accept(UNSAFE)
    await _due(story, node)
    await story.core.stores.ledger.cancel(gone.id, "default", story.clock.wall_s())
    assert await story.release() == []
    await story.accept(UNSAFE)
    await _due(story, node)
    assert len(await story.release()) == 1


async def test_answers_and_busy_servers_open_nothing(story: Story) -> None:
    """A tool that says no is there; a server that says when to come again is asked then."""
    await story.join("a1")
    await _fails(story, SAID_NO, 2 * THRESHOLD)
    await _fails(story, BUSY, 2 * THRESHOLD)
    await _fails(story, BROKEN, THRESHOLD - 1)
    await _fails(story, SAID_NO, 1)
    await _fails(story, BROKEN, THRESHOLD - 1)
    await story.accept(UNSAFE)
    assert len(await story.release()) == 1


async def test_one_crash_counts_once_however_many_calls_it_takes(story: Story) -> None:
    """A server that is started again within a second must not be passed by for a minute."""
    await story.join("a1", slots=2 * THRESHOLD)
    for _ in range(2 * THRESHOLD):
        await story.accept(UNSAFE)
    deliveries = await story.release()
    assert len(deliveries) == 2 * THRESHOLD
    for delivery in deliveries:
        await story.finish("a1", delivery, BROKEN)
        story.clock.advance(0.01)
    await story.accept(UNSAFE)
    assert len(await story.release()) == 1


async def test_callers_in_a_hurry_close_no_server(story: Story) -> None:
    """They choose the timeout; one of them must not take a server from everybody."""
    await story.join("a1")
    await _fails(story, HURRY, 2 * THRESHOLD)
    await story.accept(UNSAFE)
    assert len(await story.release()) == 1


async def _not_taken(story: Story, *nodes: PlayedNode) -> None:
    """What was sent to these nodes is disowned by all of them: two inventories that lack it."""
    for _ in range(3):
        story.clock.advance(2.0)
        for node in nodes:
            await story.renew(node)
    story.clock.advance(0.01)


async def test_a_node_that_takes_nothing_gets_nothing(story: Story) -> None:
    """It renews, so it lives; its consumer is deaf. Another node gets the calls, and why says so."""
    node = await story.join("a1")
    await story.renew(node)
    call = await story.accept(UNSAFE)
    for _ in range(BAD_IN_A_ROW):
        assert len(await story.release()) == 1
        await _not_taken(story, node)
    assert await story.release() == []
    said = " ".join(story.core.dispatcher.why(call.id))
    assert "node a1 is passed by: its circuit is open after it took none of 3 deliveries in a row" in said
    other = await story.join("b1")
    (delivery,) = await story.release()
    assert delivery.node == other.name
    assert (await story.get(call.id)).tries == 0


async def test_one_call_finds_out_that_a_node_hears_again(story: Story) -> None:
    """One probe; as soon as it runs, all else may follow."""
    node = await story.join("a1")
    await story.renew(node)
    for _ in range(3):
        await story.accept(UNSAFE)
    for _ in range(BAD_IN_A_ROW):
        await story.release()
        await _not_taken(story, node)
    for _ in range(int(EAR_RETRY_S)):
        story.clock.advance(1.0)
        await story.renew(node)
    await story.core.circuits.look()
    (probe,) = await story.release()
    assert await story.release() == []
    await story.renew(node, held(probe, Phase.RUNNING))
    assert len(await story.release()) == 2


async def test_an_emptied_redis_closes_no_node(story: Story) -> None:
    """All nodes disown all they were sent, over several inventories; each of them was hit once."""
    nodes = [await story.join(name, slots=4) for name in ("a1", "b1")]
    for node in nodes:
        await story.renew(node)
    for _ in range(6):
        await story.accept(UNSAFE)
        await story.release()
        story.clock.advance(0.7)
    await _not_taken(story, *nodes)
    assert {delivery.node for delivery in await story.release()} == {"a1", "b1"}
    views = views_of(story.core).nodes()
    assert [view.circuits for view in views] == [{}, {}]


async def test_what_could_not_be_published_speaks_against_no_node(story: Story) -> None:
    """The broker is away: nobody can take anything."""
    node = await story.join("a1")
    await story.renew(node)
    await story.accept(UNSAFE)
    for _ in range(2 * BAD_IN_A_ROW):
        assert len(await story.release()) == 1
        story.outgoing.down_because = "no connection"
        await _not_taken(story, node)
        story.outgoing.down_because = None


async def test_a_node_that_comes_back_renews_twice_before_it_is_used(story: Story) -> None:
    """A network that flaps must not get calls with every flap. Its calls wait, and why says for what."""
    node = await story.join("a1")
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.renew(node)
    call = await story.accept(UNSAFE)
    assert await story.release() == []
    said = " ".join(story.core.dispatcher.why(call.id))
    assert "node a1 is passed by: unhealthy: its lease had lapsed; it has renewed 1 of 2 times" in said
    assert list(views_of(story.core).nodes()[0].unhealthy) == [""]
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.renew(node)
    assert await story.release() == []
    await story.renew(node)
    assert len(await story.release()) == 1


async def test_an_unhealthy_server_is_passed_by_and_its_calls_wait(story: Story) -> None:
    """Its node says so with a renewal. The tool stays known; other servers of the node are used."""
    node = await story.join("a1", tools=(*TOOLS, ToolSpec(server="shop", definition={"name": "buy"})))
    await story.renew(node, unhealthy={"shop": "it is not running"})
    call = await story.accept("shop.buy")
    other = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    assert delivery.invocation == other.id
    said = " ".join(story.core.dispatcher.why(call.id))
    assert "node a1 is passed by: unhealthy: it is not running" in said
    assert views_of(story.core).nodes()[0].unhealthy == {"shop": "it is not running"}
    await story.renew(node, held(delivery, Phase.RUNNING), unhealthy={})
    (delivery,) = await story.release()
    assert delivery.invocation == call.id


async def test_people_see_when_the_server_of_a_running_call_was_last_heard_of(story: Story) -> None:
    """The inventory says it, with every renewal; no message of its own."""
    node = await story.join("a1")
    call = await story.accept(UNSAFE)
    (delivery,) = await story.release()
    await story.renew(node, held(delivery, Phase.RUNNING).model_copy(update={"quiet_s": 40.0}))
    now_s = story.clock.wall_s()
    shown = await fleet_of(story.core, views_of(story.core)).get(call.id, WHO)
    assert shown.attempts[-1].heard_at == now_s - 40.0


async def test_operators_see_open_circuits_on_the_node(story: Story) -> None:
    """Server and reason."""
    await story.join("a1")
    await _fails(story, BROKEN)
    (view,) = views_of(story.core).nodes()
    assert list(view.circuits) == [UNSAFE.partition(".")[0]]


async def test_a_nodes_own_faults_close_the_node_for_all_servers(story: Story) -> None:
    """A full disk harms every tool."""
    await story.join("a1")
    await _fails(story, OWN_FAULT)
    call = await story.accept(SAFE)
    assert await story.release() == []
    assert (await story.get(call.id)).state is State.WAITING


async def test_a_new_process_of_the_node_starts_with_closed_circuits(story: Story) -> None:
    """Whoever mended it and started it again waits for nothing."""
    await story.join("a1")
    await _fails(story, BROKEN)
    await story.join("a1")
    await story.accept(UNSAFE)
    assert len(await story.release()) == 1


async def test_operators_see_each_circuit_from_its_first_failure_to_its_probe(story: Story) -> None:
    """Closed with a count, open since when and until when, half-open with and without its probe; then it is gone."""
    node = await story.join("a1")
    views, server = views_of(story.core), UNSAFE.partition(".")[0]
    assert views.circuits() == []
    await _fails(story, BROKEN, 2)
    (one,) = views.circuits()
    assert (one.node, one.server, one.watches, one.state, one.failures) == ("a1", server, "results", "closed", 2)
    assert (one.opened_at, one.probe_at, one.error) == (None, None, "it ended")
    await _fails(story, BROKEN, THRESHOLD - 2)
    (one,) = views.circuits()
    now_s = story.clock.wall_s()
    assert (one.state, one.is_probing) == ("open", False)
    assert (one.opened_at, one.probe_at) == pytest.approx((now_s - 0.01, now_s - 0.01 + RETRY_AFTER_S))
    await _due(story, node)
    (one,) = views.circuits()
    assert (one.state, one.is_probing) == ("half-open", False)
    await story.accept(UNSAFE)
    (probe,) = await story.release()
    (one,) = views.circuits()
    assert (one.state, one.is_probing) == ("half-open", True)
    await story.finish("a1", probe, Outcome("succeeded", "{}"))
    assert views.circuits() == []
