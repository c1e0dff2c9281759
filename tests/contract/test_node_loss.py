"""`on_node_loss`: what operators declare for calls that a lost node may have been running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.settling.verdict import LOSSES_MAX
from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, endings
from tasks.invocation import State
from tasks.node import LEASE_TTL_S
from tasks.outcome import Failure
from tasks.tool import Declared, OnNodeLoss, ToolPolicy, ToolSpec

if TYPE_CHECKING:
    from orchestrator.testing.protocol import Story


async def test_work_that_shall_fail_with_its_node_fails_after_the_grace(story: Story) -> None:
    """Declared by the operator; nothing is repeated, and the dead letter says why."""
    await story.join("a1", tools=_declared(OnNodeLoss.FAIL))
    call = await story.accept(UNSAFE)
    await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    assert (await story.get(call.id)).state is State.UNREACHABLE
    await story.silence(60)
    ended = await story.get(call.id)
    assert (ended.state, endings(ended), ended.tries) == (State.FAILED, ["lost"], 1)


async def test_work_that_shall_rerun_goes_elsewhere_though_it_is_not_safe(story: Story) -> None:
    """At once, as safe work does; only where every node says so."""
    tools = _declared(OnNodeLoss.RERUN)
    await story.join("a1", tools=tools)
    call = await story.accept(UNSAFE)
    await story.release()
    other = await story.join("b1", tools=tools)
    await story.lapse(LEASE_TTL_S + 0.1)
    await story.renew(other)
    story.clock.advance(5)
    await story.renew(other)
    (second,) = await story.release()
    assert (second.invocation, second.node, second.fence) == (call.id, "b1", 2)


async def test_nodes_that_differ_on_a_loss_leave_it_to_a_person(story: Story) -> None:
    """One says rerun, one says nothing: one doubt is enough not to."""
    await story.join("a1", tools=_declared(OnNodeLoss.RERUN))
    await story.join("b1")
    assert story.core.roster.declared(UNSAFE) == Declared(on_node_loss=OnNodeLoss.ASK)
    assert story.core.roster.declared("no.such") is None


async def test_lost_nodes_use_up_no_retries(story: Story) -> None:
    """However many vanish under a safe call, its own policy is for its own failures; up to a bound."""
    await story.join("n0")
    call = await story.accept(SAFE)
    for number in range(1, LOSSES_MAX + 1):
        assert len(await story.release()) == 1, f"after {number - 1} losses"
        await story.lapse(LEASE_TTL_S + 5)
        await story.join(f"n{number}")  # a new machine takes the place of each that is lost
        story.clock.advance(2)
    ended = await story.get(call.id)
    assert (ended.state, ended.tries) == (State.FAILED, 0)
    assert ended.outcome is not None
    assert ended.outcome.error is not None
    assert ended.outcome.error.failure is Failure.POISON


async def test_what_only_waited_on_a_node_that_lost_its_disk_is_not_poison(story: Story) -> None:
    """It died twice, and this call never ran there."""
    await story.join("a1")
    call = await story.accept(SAFE)
    for _ in range(2):
        story.clock.advance(2)
        assert len(await story.release()) == 1
        await story.join("a1")
    assert (await story.get(call.id)).state is State.WAITING


def _declared(what: OnNodeLoss) -> tuple[ToolSpec, ...]:
    return tuple(tool.model_copy(update={"policy": ToolPolicy(on_node_loss=what)}) for tool in TOOLS)
