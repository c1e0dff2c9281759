"""Leading: what holds while it is proved, while it cannot be proved, and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from orchestrator.leader import Leadership, Proof
from orchestrator.ledger.errors import EpochLost
from tasks.clock import SystemClock
from tasks.errors import LedgerDown
from tasks.testing.clock import FakeClock

TTL_S = 0.06
WITHIN_S = 20.0
OWN, OTHER = "10.0.0.1:8700", "10.0.0.2:8700"


@dataclass
class Epochs:
    """A leader row that a test moves, and what was asked of it."""

    epoch: int | None = 1
    address: str | None = None
    renewal: bool | Exception = True
    fenced: list[int] = field(default_factory=list)
    renewed: list[float] = field(default_factory=list)

    async def take_epoch(self, holder: str, ttl_s: float, address: str | None = None) -> int | None:
        return self.epoch

    async def renew_epoch(self, holder: str, epoch: int, ttl_s: float) -> bool:
        self.renewed.append(ttl_s)
        if isinstance(self.renewal, Exception):
            raise self.renewal
        return self.renewal

    async def leader_address(self) -> str | None:
        return self.address

    def fence(self, epoch: int) -> None:
        self.fenced.append(epoch)


@dataclass
class Heard:
    """What the rest of the orchestrator was told."""

    said: list[str] = field(default_factory=list)
    follows: list[str | None] = field(default_factory=list)
    looped: int = 0


@asynccontextmanager
async def leading(epochs: Epochs, heard: Heard) -> AsyncIterator[tuple[Leadership, Proof]]:
    """A leadership that runs."""
    clock = SystemClock()
    proof = Proof(clock)

    async def gained(epoch: int) -> None:
        assert epochs.fenced == [epoch], "nothing is written or read before writes are fenced"
        heard.said.append("gained")

    async def loop() -> None:
        heard.looped += 1
        await asyncio.Event().wait()

    leadership = Leadership(
        epochs=epochs,
        holder="o-1",
        address=OWN,
        ttl_s=TTL_S,
        proof=proof,
        clock=clock,
        gained=gained,
        proved_again=lambda: heard.said.append("proved again"),
        lost=lambda: heard.said.append("lost"),
        follows=heard.follows.append,
        loops=[loop],
    )
    running = asyncio.create_task(leadership.run())
    try:
        async with asyncio.timeout(WITHIN_S):
            yield leadership, proof
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _until(condition: object) -> None:
    assert callable(condition)
    while not condition():  # noqa: ASYNC110 - the fakes of these tests give no event
        await asyncio.sleep(0.005)


def test_a_proof_counts_from_when_it_was_asked_for() -> None:
    """By the monotonic clock: the ledger counts from later, so it ends here first."""
    clock = FakeClock()
    proof = Proof(clock)
    assert not proof.holds()
    asked_at_s = clock.mono_s()
    clock.advance(2.0)
    proof.extend(asked_at_s, 6.0)
    clock.advance(3.9)
    assert proof.holds()
    clock.advance(0.2)
    assert not proof.holds()


async def test_a_leader_renews_and_hands_over_when_it_ends() -> None:
    """Its loops run; whoever comes next need not wait for the lease to end."""
    epochs, heard = Epochs(), Heard()
    async with leading(epochs, heard) as (leadership, proof):
        await leadership.is_leader.wait()
        await _until(proof.holds)
        await _until(lambda: len(epochs.renewed) > 2)
    assert (heard.said, heard.looped, epochs.renewed[-1]) == (["gained", "lost"], 1, 0.0)
    assert not proof.holds()


async def test_a_ledger_that_is_away_pauses_a_leader() -> None:
    """It cannot prove that it leads, so it grants nothing; once it can, leases are whole again and it goes on."""
    epochs, heard = Epochs(), Heard()
    async with leading(epochs, heard) as (leadership, proof):
        await leadership.is_leader.wait()
        epochs.renewal = LedgerDown("the test says so")
        await _until(lambda: not proof.holds())
        assert leadership.is_leader.is_set()
        epochs.renewal = True
        await _until(proof.holds)
        await _until(lambda: "proved again" in heard.said)
        assert not leadership.is_over.is_set()


@pytest.mark.parametrize("answer", [False, EpochLost(1, 2)], ids=["renewal", "guard"])
async def test_a_leader_that_was_superseded_ends(answer: bool | Exception) -> None:
    """What it has in memory is stale: its loops stop, and it does not ask to lead again."""
    epochs, heard = Epochs(), Heard()
    async with leading(epochs, heard) as (leadership, proof):
        await leadership.is_leader.wait()
        epochs.renewal = answer
        await leadership.is_over.wait()
        await _until(lambda: not leadership.is_leader.is_set())
        assert not proof.holds()
    assert heard.said == ["gained", "lost"]


async def test_a_replica_follows_whoever_leads() -> None:
    """Not itself: a row of its own address is what a killed predecessor left."""
    epochs, heard = Epochs(epoch=None, address=OTHER), Heard()
    async with leading(epochs, heard) as (leadership, proof):
        await _until(lambda: OTHER in heard.follows)
        epochs.address = OWN
        await _until(lambda: None in heard.follows)
        assert OWN not in heard.follows
        assert not proof.holds()
        epochs.epoch = 7
        await leadership.is_leader.wait()
    assert epochs.fenced == [7]


async def test_a_leader_that_steps_down_leads_no_more_at_once() -> None:
    """Before it hands over: nothing is granted between the two."""
    epochs, heard = Epochs(), Heard()
    async with leading(epochs, heard) as (leadership, proof):
        await leadership.is_leader.wait()
        leadership.step_down()
        assert not proof.holds()
        await _until(lambda: epochs.renewed[-1:] == [0.0])
    assert heard.said == ["gained", "lost"]
