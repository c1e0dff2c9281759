"""What a tool declared when a call was released still holds while its server is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, PlayedNode, Story, held
from tasks.envelope import Delivery
from tasks.errors import LedgerDown
from tasks.invocation import Lane, State
from tasks.node import Offer, Phase, RenewRequest
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.tool import Declared, OnNodeLoss, ToolPolicy, ToolSpec

CRASHED = Outcome("failed", error=ErrorInfo("connection_lost", "the server died", Failure.MAYBE_STARTED))


@pytest.mark.parametrize(("tool", "state"), [(SAFE, State.WAITING), (UNSAFE, State.FAILED)])
async def test_a_server_that_takes_its_tools_with_it_takes_no_promise(story: Story, tool: str, state: State) -> None:
    """The only node that offers it withdraws it, and then tells how the call ended."""
    node = await story.join("a1")
    call = await story.accept(tool)
    (delivery,) = await story.release()
    await _offers(story, node, delivery, ())
    await story.finish("a1", delivery, CRASHED)
    assert (await story.get(call.id)).state is state


async def test_a_new_leader_knows_what_was_declared(tmp_path: Path) -> None:
    """It is kept with the attempt, and nobody offers the tool when the end is told."""
    first = await Story.begin(tmp_path)
    node = await first.join("a1")
    call = await first.accept(SAFE)
    (delivery,) = await first.release()
    await _offers(first, node, delivery, ())
    clock = first.clock
    await first.end()
    second = await Story.begin(tmp_path, clock)
    await second.finish("a1", delivery, CRASHED)
    assert (await second.get(call.id)).state is State.WAITING
    await second.end()


async def test_a_declaration_that_became_stricter_counts(story: Story) -> None:
    """Released as safe, and now one that offers it says that it is not."""
    node = await story.join("a1")
    call = await story.accept(SAFE)
    (delivery,) = await story.release()
    stricter = tuple(tool.model_copy(update={"policy": ToolPolicy(is_safe=False)}) for tool in TOOLS)
    await _offers(story, node, delivery, stricter)
    await story.finish("a1", delivery, CRASHED)
    assert (await story.get(call.id)).state is State.FAILED


async def test_an_offer_is_asked_for_while_it_is_saved(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a node's word and its row nobody sees half of it."""
    node = await story.join("a1")
    await story.accept(SAFE)
    (delivery,) = await story.release()

    async def down(_row: object) -> None:
        assert story.core.roster.declared(SAFE) is None
        raise LedgerDown("the test says so")

    monkeypatch.setattr(story.core.stores.ledger, "save_node", down)
    with pytest.raises(LedgerDown):
        await _offers(story, node, delivery, ())


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        pytest.param(Declared(is_safe=True), Declared(is_safe=True), Declared(is_safe=True), id="agreed"),
        pytest.param(Declared(is_safe=True), Declared(), Declared(), id="one doubts"),
        pytest.param(
            Declared(on_node_loss=OnNodeLoss.RERUN),
            Declared(on_node_loss=OnNodeLoss.FAIL),
            Declared(),
            id="they differ",
        ),
    ],
)
def test_the_stricter_word_counts(one: Declared, other: Declared, both: Declared) -> None:
    """In either order."""
    assert one.stricter(other) == other.stricter(one) == both


async def _offers(story: Story, node: PlayedNode, delivery: Delivery, tools: tuple[ToolSpec, ...]) -> None:
    """A renewal of the node that runs it, with another offer."""
    offer = Offer(name="a1", pool="east", slots={Lane.TOOLS: 2, Lane.AGENTS: 1}, tools=tools)
    inventory = (held(delivery, Phase.RUNNING),)
    await story.core.desk.renew(
        "a1", RenewRequest(incarnation=node.incarnation, inventory=inventory, heard=node.heard, offer=offer)
    )
