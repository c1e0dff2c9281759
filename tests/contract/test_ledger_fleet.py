"""What the ledger remembers of the fleet: its leader, nodes, affinity and pauses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, new
from orchestrator.ledger.values import NodeRow
from tasks.testing.clock import FakeClock

NODE = NodeRow("n1", "default", "inc-1", 1, "active", '{"tools":[]}', "key", "digest", AT)


async def test_one_of_racing_orchestrators_leads(ledger: Ledger) -> None:
    """Ten at once: one epoch is given, to one holder."""
    epochs = await asyncio.gather(*(ledger.take_epoch(f"o-{number}", 5.0) for number in range(10)))
    assert [epoch for epoch in epochs if epoch is not None] == [1]


async def test_a_good_lease_cannot_be_taken(ledger: Ledger) -> None:
    """Others wait until it is handed over; then the next epoch begins."""
    assert await ledger.take_epoch("o-1", 60.0) == 1
    assert await ledger.take_epoch("o-2", 60.0) is None
    assert await ledger.renew_epoch("o-1", 1, 0.0)
    assert await ledger.take_epoch("o-2", 60.0) == 2
    assert await ledger.take_epoch("o-1", 60.0) is None


async def test_a_lease_that_nobody_renews_lapses(ledger: Ledger) -> None:
    """Its holder died: whoever asks long enough leads."""
    assert await ledger.take_epoch("o-1", 0.2) == 1
    async with asyncio.timeout(30):
        while (epoch := await ledger.take_epoch("o-2", 60.0)) is None:
            assert not await ledger.renew_epoch("o-2", 1, 60.0)
    assert epoch == 2


async def test_the_clocks_of_orchestrators_do_not_matter(ledger: Ledger, clock: FakeClock) -> None:
    """A replica five minutes ahead takes no lease that is good, and renews one as well as any other."""
    assert await ledger.take_epoch("o-1", 60.0) == 1
    clock.advance(300.0)
    assert await ledger.take_epoch("o-2", 60.0) is None
    assert await ledger.renew_epoch("o-1", 1, 60.0)


async def test_the_same_holder_keeps_its_epoch(ledger: Ledger) -> None:
    """Nobody else led in between, so nothing that it released is in doubt."""
    assert await ledger.take_epoch("o-1", 0.0) == 1
    assert await ledger.take_epoch("o-1", 60.0) == 1


async def test_a_renewed_lease_is_good_again_unless_somebody_took_it(ledger: Ledger) -> None:
    """Renewing keeps others out; after they took over, it says so."""
    assert await ledger.take_epoch("o-1", 0.0) == 1
    assert await ledger.renew_epoch("o-1", 1, 60.0)
    assert await ledger.take_epoch("o-2", 60.0) is None
    assert await ledger.renew_epoch("o-1", 1, 0.0)
    assert await ledger.take_epoch("o-2", 0.0) == 2
    assert not await ledger.renew_epoch("o-1", 1, 60.0)
    assert not await ledger.renew_epoch("o-1", 2, 60.0)
    assert await ledger.take_epoch("o-1", 60.0) == 3
    assert not await ledger.renew_epoch("o-1", 1, 60.0)


async def test_where_the_leader_is(ledger: Ledger) -> None:
    """Other replicas pass connections on to it, while its lease is good."""
    assert await ledger.leader_address() is None
    await ledger.take_epoch("o-1", 60.0, "10.0.0.1:8700")
    assert await ledger.leader_address() == "10.0.0.1:8700"
    await ledger.renew_epoch("o-1", 1, 0.0)
    assert await ledger.leader_address() is None


async def test_a_superseded_leader_writes_nothing(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """Its successor read everything when it took over, and would never hear of what came later."""
    (before,) = await accepted(ledger, new())
    assert await ledger.take_epoch("o-1", 0.0) == 1
    ledger.fence(1)
    (during,) = await accepted(ledger, new())
    successor = await Ledger.open(ledger_url, clock=clock)
    assert await successor.take_epoch("o-2", 60.0) == 2
    row = new()
    for late in (
        ledger.accept([row]),
        ledger.cancel(before, None, AT),
        ledger.save_node(NODE),
        ledger.renew_epoch("o-1", 1, 60.0),
    ):
        with pytest.raises(EpochLost, match="another leads"):
            await late
    assert {one.id for one in await successor.waiting()} == {before, during}
    assert await successor.nodes() == []
    await successor.close()


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
