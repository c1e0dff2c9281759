"""What the ledger remembers of the fleet: its leader, nodes, affinity and pauses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT
from orchestrator.ledger.values import NodeRow
from tasks.testing.clock import FakeClock

NODE = NodeRow("n1", "default", "inc-1", 1, "active", '{"tools":[]}', "key", "digest", AT)


async def test_one_of_racing_orchestrators_leads(ledger: Ledger) -> None:
    """Ten at once: one epoch is given, to one holder."""
    epochs = await asyncio.gather(*(ledger.take_epoch(f"o-{number}", 5.0) for number in range(10)))
    assert [epoch for epoch in epochs if epoch is not None] == [1]


async def test_a_good_lease_cannot_be_taken(ledger: Ledger, clock: FakeClock) -> None:
    """Until it lapses, others wait; then the next epoch begins."""
    assert await ledger.take_epoch("o-1", 5.0) == 1
    clock.advance(4.9)
    assert await ledger.take_epoch("o-2", 5.0) is None
    clock.advance(0.2)
    assert await ledger.take_epoch("o-2", 5.0) == 2
    assert await ledger.take_epoch("o-1", 5.0) is None


async def test_the_same_holder_keeps_its_epoch(ledger: Ledger, clock: FakeClock) -> None:
    """Nobody else led in between, so nothing that it released is in doubt."""
    assert await ledger.take_epoch("o-1", 5.0) == 1
    clock.advance(60.0)
    assert await ledger.take_epoch("o-1", 5.0) == 1


async def test_a_renewed_lease_is_good_for_longer(ledger: Ledger, clock: FakeClock) -> None:
    """Renewing keeps others out; after they took over, it says so."""
    assert await ledger.take_epoch("o-1", 5.0) == 1
    clock.advance(4.0)
    assert await ledger.renew_epoch("o-1", 1, 5.0)
    clock.advance(4.0)
    assert await ledger.take_epoch("o-2", 5.0) is None
    clock.advance(2.0)
    assert await ledger.take_epoch("o-2", 5.0) == 2
    assert not await ledger.renew_epoch("o-1", 1, 5.0)
    assert not await ledger.renew_epoch("o-1", 2, 5.0)
    clock.advance(6.0)
    assert await ledger.take_epoch("o-1", 5.0) == 3
    assert not await ledger.renew_epoch("o-1", 1, 5.0)


async def test_nodes_are_remembered_and_replaced(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """A restarted orchestrator knows its nodes as they were saved last."""
    await ledger.save_node(NODE)
    await ledger.save_node(replace(NODE, name="n2"))
    newer = replace(NODE, incarnation="inc-2", term=2, state="draining")
    await ledger.save_node(newer)
    await ledger.close()
    reopened = await Ledger.open(ledger_url, clock=clock)
    assert await reopened.nodes() == [newer, replace(NODE, name="n2")]
    await reopened.forget_node("n2")
    await reopened.forget_node("unknown")
    assert await reopened.nodes() == [newer]
    await reopened.close()


async def test_affinity_slides_moves_and_fades(ledger: Ledger, clock: FakeClock) -> None:
    """The last binding of a project counts; what faded is gone with the next saving."""
    await ledger.bind_affinity([("shop", "n1", AT + 5), ("blog", "n1", AT + 300)])
    await ledger.bind_affinity([("blog", "n2", AT + 400)])
    assert await ledger.affinities() == [("blog", "n2", AT + 400), ("shop", "n1", AT + 5)]
    clock.advance(6.0)
    await ledger.bind_affinity([])
    assert await ledger.affinities() == [("blog", "n2", AT + 400)]


async def test_pauses_are_remembered(ledger: Ledger) -> None:
    """Pausing and resuming may be said twice; a kind's name is its own."""
    for _ in range(2):
        await ledger.set_paused("pool", "default", True)
    await ledger.set_paused("project", "default", True)
    assert await ledger.paused() == {("pool", "default"), ("project", "default")}
    for _ in range(2):
        await ledger.set_paused("pool", "default", False)
    assert await ledger.paused() == {("project", "default")}
