"""A pool that is at zero still has its tools: calls are accepted, wait, say for what, and run once a node joins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from orchestrator.assembly import fleet_of, views_of
from orchestrator.autoscaler.values import NodeClaim, Observation
from orchestrator.leading import remember_shapes
from orchestrator.sensing import sensors_of
from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, WHO, PlayedNode, Story
from tasks.errors import LedgerDown, UnknownCapability, UnknownTool
from tasks.invocation import Lane, State
from tasks.node import LeaveRequest, NodeState, Offer, RenewRequest
from tasks.tool import ToolSpec

POOLS = """
[providers.cloud]
kind = "static"
[pools.builders.scale]
min_machines = 0
may_use_spot = true
ladder = [
  { provider = "cloud", region = "eu-1", is_spot = true },
  { provider = "cloud", region = "us-1" },
]
[projects.shop]
regions = ["eu-*"]
[projects.museum]
regions = ["antarctica"]
"""


class NoClaims:
    """Satisfies `sensors.Claims`: nothing was ordered."""

    def standing(self, _pool: str) -> Sequence[NodeClaim]:
        """None."""
        return ()

    def boots_s(self, _pool: str) -> Sequence[float]:
        """None."""
        return ()


@pytest.fixture
def pools_file(tmp_path: Path) -> Path:
    """One scaled pool."""
    path = tmp_path / "pools.toml"
    path.write_text(POOLS)
    return path


@pytest.fixture
async def story(tmp_path: Path, pools_file: Path) -> AsyncIterator[Story]:
    """A leader that sizes one pool."""
    story = await Story.begin(tmp_path, pools_file=pools_file)
    yield story
    await story.end()


async def test_a_call_for_a_pool_at_zero_waits_for_its_first_machine(story: Story) -> None:
    """Accepted, explained, seen as demand, and placed once a node joins."""
    await _seen_and_gone(story)
    call = await story.accept(SAFE)
    assert await story.release() == []
    assert story.core.dispatcher.why(call.id) == ("no node of pool builders is up; the autoscaler is asked for one",)
    story.clock.advance(30)
    seen = _look(story)
    assert (seen.lanes[Lane.TOOLS].waiting, seen.has_unmet, seen.is_unknown) == (1, True, False)
    assert seen.lanes[Lane.TOOLS].oldest_wait_s == pytest.approx(30.0, abs=1.0)
    assert seen.lanes[Lane.TOOLS].slots_per_machine == 2
    await story.join("b2", pool="builders")
    (delivery,) = await story.release()
    assert (delivery.invocation, delivery.node) == (call.id, "b2")
    assert not _look(story).has_unmet


async def test_a_dry_autoscaler_does_not_promise_a_machine(tmp_path: Path, pools_file: Path) -> None:
    """What it only says is not what will happen."""
    pools_file.write_text(POOLS + "[scale]\nis_dry = true\n")
    story = await Story.begin(tmp_path, pools_file=pools_file)
    await _seen_and_gone(story)
    call = await story.accept(SAFE)
    await story.release()
    (why,) = story.core.dispatcher.why(call.id)
    assert why.endswith("is up; the autoscaler only says what it would do ([scale] is_dry), so start one")
    await story.end()


async def test_tools_of_a_pool_at_zero_are_listed(story: Story) -> None:
    """With their pool, and no node; the list does not change when the last node leaves."""
    node = await story.join("b1", pool="builders")
    fleet = fleet_of(story.core, views_of(story.core))
    version = fleet.tools_version
    await story.core.desk.leave("b1", LeaveRequest(incarnation=node.incarnation))
    views = {view.name: view for view in fleet.tools(WHO)}
    assert set(views) == {SAFE, UNSAFE}
    assert (views[SAFE].pools, views[SAFE].nodes, views[SAFE].is_safe) == (["builders"], 0, True)
    assert fleet.tools_version == version
    (pool,) = fleet.pools()
    assert (pool.name, pool.nodes, pool.capabilities) == ("builders", 0, ["files"])


async def test_a_new_leader_remembers_what_a_pool_at_zero_offers(tmp_path: Path, pools_file: Path) -> None:
    """It is in the ledger, and only as often as it changed."""
    first = await Story.begin(tmp_path, pools_file=pools_file)
    await _seen_and_gone(first)
    await remember_shapes(first.core)
    assert first.core.roster.shapes.dirty() == []
    await first.end()
    second = await Story.begin(tmp_path, first.clock, pools_file=pools_file)
    call = await second.accept(SAFE)
    assert second.core.roster.declared(SAFE) is None
    await second.join("b2", pool="builders")
    assert [delivery.invocation for delivery in await second.release()] == [call.id]
    await second.end()


async def test_a_shape_that_could_not_be_saved_is_saved_later(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger may be down when a node joins."""
    await story.join("b1", pool="builders")

    async def down(_row: object) -> None:
        raise LedgerDown("the test says so")

    with monkeypatch.context() as patched:
        patched.setattr(story.core.stores.ledger, "save_scale_pool", down)
        with pytest.raises(LedgerDown):
            await remember_shapes(story.core)
    await remember_shapes(story.core)
    (row,) = await story.core.stores.ledger.scale_pools()
    assert row.pool == "builders"
    assert row.shape_json is not None


async def test_nobody_remembers_pools_that_are_not_scaled(story: Story) -> None:
    """Their nodes come back by themselves or not at all: their tools go with them."""
    node = await story.join("e1", pool="east")
    await story.core.desk.leave("e1", LeaveRequest(incarnation=node.incarnation))
    with pytest.raises(UnknownTool):
        await story.accept(SAFE)


async def test_a_server_that_is_down_for_a_moment_is_not_forgotten_with_the_last_node(story: Story) -> None:
    """A change only adds; the next join says anew what a machine brings."""
    node = await story.join("b1", pool="builders")
    await _offers(story, node, TOOLS[:1])
    await story.core.desk.leave("b1", LeaveRequest(incarnation=node.incarnation))
    assert (await story.accept(UNSAFE)).state is State.WAITING
    newer = await story.join("b2", pool="builders", tools=TOOLS[:1])
    with pytest.raises(UnknownTool):
        await story.accept(UNSAFE)
    await _offers(story, newer, TOOLS)
    assert (await story.accept(UNSAFE)).state is State.WAITING


async def test_a_join_does_not_forget_what_others_of_the_pool_offer(story: Story) -> None:
    """The shape is what its nodes have together, those that were lost left out."""
    extra = (ToolSpec(server="git", definition={"name": "log"}),)
    await story.join("b1", pool="builders", tools=extra)
    await story.join("b2", pool="builders")
    assert {tool.name for tool in story.core.roster.shapes.tools()} == {"files.read", "files.write", "git.log"}
    story.core.roster.get("b1").state = NodeState.LOST
    await story.join("b3", pool="builders")
    assert {tool.name for tool in story.core.roster.shapes.tools()} == {"files.read", "files.write"}


async def test_a_critical_call_may_ask_for_a_machine_that_is_not_taken_away(story: Story) -> None:
    """`on-demand` is known because a rung could give it, and no spot node takes such a call."""
    await _seen_and_gone(story, capabilities=frozenset({"spot"}))
    call = await story.accept(SAFE, requires=frozenset({"on-demand"}))
    with pytest.raises(UnknownCapability):
        await story.accept(SAFE, requires=frozenset({"gpu"}))
    await story.join("b2", pool="builders", capabilities=frozenset({"spot"}))
    assert await story.release() == []
    (why,) = story.core.dispatcher.why(call.id)
    assert why == "no node of pool builders that is up can run it; the autoscaler is asked for one"
    assert _look(story).has_unmet
    await story.join("b3", pool="builders", capabilities=frozenset({"on-demand"}))
    assert [delivery.node for delivery in await story.release()] == ["b3"]


async def test_a_pool_nobody_has_seen_asks_for_one_machine_to_learn_from(story: Story) -> None:
    """Its tools are unknown until then, so nobody could call them."""
    with pytest.raises(UnknownTool):
        await story.accept(SAFE, pool="builders")
    assert (_look(story).is_unknown, _look(story).has_unmet) == (True, False)
    await _seen_and_gone(story)
    assert (_look(story).is_unknown, _look(story).has_unmet) == (False, False)


async def test_a_paused_pool_buys_nothing(story: Story) -> None:
    """Nor does a paused project: an operator holds both up."""
    await _seen_and_gone(story)
    await story.accept(SAFE, project="p")
    await story.core.dispatcher.pause("pool", "builders", is_paused=True)
    await story.release()
    assert _look(story).lanes[Lane.TOOLS].waiting == 0
    await story.core.dispatcher.pause("pool", "builders", is_paused=False)
    await story.core.dispatcher.pause("project", "p", is_paused=True)
    await story.release()
    assert _look(story).lanes[Lane.TOOLS].waiting == 0
    assert story.core.dispatcher.waiting_in_pool("builders") == 1
    await story.core.dispatcher.pause("project", "p", is_paused=False)
    await story.release()
    assert _look(story).lanes[Lane.TOOLS].waiting == 1


async def test_a_project_stays_where_its_operator_bound_it(story: Story) -> None:
    """It waits beside an idle node that is elsewhere, wants a machine where it may run, and goes there."""
    await story.join("us", pool="builders", location="us-1")
    free = await story.accept(SAFE, project="else")
    bound = await story.accept(SAFE, project="shop")
    assert [delivery.invocation for delivery in await story.release()] == [free.id]
    assert story.core.dispatcher.why(bound.id) == (
        "no node of pool builders that is up can run it; the autoscaler is asked for one",
        "project shop may not leave eu-*; node us is in us-1",
    )
    assert (_look(story).has_unmet, _look(story).regions_wanted) == (True, ("eu-*",))
    await story.join("eu", pool="builders", location="eu-1")
    (delivery,) = await story.release()
    assert (delivery.invocation, delivery.node) == (bound.id, "eu")
    attempt = (await story.get(bound.id)).attempts[0]
    assert "regions: 1 of them where project shop may run, eu-*" in attempt.reasons
    assert _look(story).regions_wanted == ()


async def test_a_project_that_no_rung_may_serve_buys_nothing(story: Story) -> None:
    """No machine of the ladder stands there: it waits, and is nobody's demand."""
    await story.join("us", pool="builders", location="us-1")
    call = await story.accept(SAFE, project="museum")
    assert await story.release() == []
    assert story.core.dispatcher.why(call.id) == ("project museum may not leave antarctica; node us is in us-1",)
    assert (_look(story).lanes[Lane.TOOLS].waiting, _look(story).has_unmet) == (0, False)


async def test_a_warm_node_outside_is_not_used(story: Story) -> None:
    """A project that is bound after it was warm elsewhere goes where it may."""
    await story.join("us", pool="builders", location="us-1")
    await story.join("eu", pool="builders", location="eu-1")
    now = story.clock.wall_s()
    story.core.dispatcher.recall(paused=(), bound=[("shop", "us", now + 300)])
    await story.accept(SAFE, project="shop")
    assert [delivery.node for delivery in await story.release()] == ["eu"]


async def _seen_and_gone(story: Story, **more: frozenset[str]) -> None:
    node = await story.join("b1", pool="builders", **more)
    await story.core.desk.leave("b1", LeaveRequest(incarnation=node.incarnation))


async def _offers(story: Story, node: PlayedNode, tools: tuple[ToolSpec, ...]) -> None:
    offer = Offer(name=node.name, pool="builders", slots={Lane.TOOLS: 2, Lane.AGENTS: 1}, tools=tools)
    await story.core.desk.renew(node.name, RenewRequest(incarnation=node.incarnation, offer=offer))


def _look(story: Story) -> Observation:
    (seen,) = sensors_of(story.core, NoClaims(), has_notice=lambda _claim: False, renew_every_s=2.0).observe()
    return seen
