"""The book of claims over the real ledger: what a crash leaves, and who may write."""

from __future__ import annotations

import random

import pytest

from orchestrator.autoscaler.book.claims import KEEP_GONE_S, ClaimBook
from orchestrator.autoscaler.errors import ClaimMoveRefused
from orchestrator.autoscaler.values import ClaimState, NodeClaim, Rung
from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.ledger import Ledger
from tasks.testing.clock import FakeClock

RUNG = Rung("near", "small", "eu-1", is_spot=True, price_eur_h=0.01)


def book_of(ledger: Ledger, clock: FakeClock, cluster: str = "prod") -> ClaimBook:
    """One process's."""
    return ClaimBook(books=ledger, clock=clock, draw=random.Random(7).randbytes, cluster=cluster)


async def ordered(book: ClaimBook) -> NodeClaim:
    """One claim."""
    return await book.order("builders", RUNG, reason="300 calls wait", expires_at=9.0, price_eur_h=0.01)


async def test_a_claim_is_read_as_it_was_written(ledger: Ledger, clock: FakeClock) -> None:
    """Every field comes back to the next leader, whatever happened to the last one."""
    book = book_of(ledger, clock)
    first = await ordered(book)
    await book.note(first.id, machine_id="m-1", address="192.0.2.1", failures=2, error="no answer")
    clock.advance(30.0)
    await book.move(first.id, ClaimState.READY, ready_at=clock.wall_s())
    again = book_of(ledger, clock)
    await again.load()
    assert again.all() == book.all()
    assert again.boots_s("builders") == [30.0]
    assert (await ordered(again)).id != first.id


async def test_a_superseded_leader_orders_nothing(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """Its writes are refused, so no cloud is asked, and its memory stays as it was."""
    book = book_of(ledger, clock)
    epoch = await ledger.take_epoch("orchestrator-1", 10.0)
    assert epoch is not None
    ledger.fence(epoch)
    claim = await ordered(book)
    other = await Ledger.open(ledger_url, clock=clock)
    try:
        clock.advance(60.0)
        await other.renew_epoch("orchestrator-1", epoch, 0.0)
        assert await other.take_epoch("orchestrator-2", 10.0) is not None
        with pytest.raises(EpochLost):
            await ordered(book)
        with pytest.raises(EpochLost):
            await book.move(claim.id, ClaimState.TERMINATING)
        assert book.all() == [claim]
    finally:
        await other.close()


async def test_only_the_moves_that_are_drawn_are_made(ledger: Ledger, clock: FakeClock) -> None:
    """What is gone stays gone, and nothing is gone before it was ended."""
    book = book_of(ledger, clock)
    claim = await ordered(book)
    with pytest.raises(ClaimMoveRefused, match="booting and cannot become gone"):
        await book.move(claim.id, ClaimState.GONE)
    await book.move(claim.id, ClaimState.TERMINATING)
    await book.move(claim.id, ClaimState.GONE)
    with pytest.raises(ClaimMoveRefused):
        await book.move(claim.id, ClaimState.READY)


async def test_what_is_gone_for_a_week_is_forgotten(ledger: Ledger, clock: FakeClock) -> None:
    """In memory as in the ledger, and nothing that may still exist."""
    book = book_of(ledger, clock)
    gone, stays = await ordered(book), await ordered(book)
    await book.move(gone.id, ClaimState.TERMINATING)
    await book.move(gone.id, ClaimState.GONE)
    clock.advance(KEEP_GONE_S + 1.0)
    assert await book.forget() == 1
    assert [claim.id for claim in book.all()] == [stays.id]
    assert [row.id for row in await ledger.claims()] == [stays.id]


@pytest.mark.parametrize("pool", ["p", "builders", "a" * 41, "a" * 29 + "-b"])
async def test_a_machines_name_is_a_nodes_name(ledger: Ledger, clock: FakeClock, pool: str) -> None:
    """However long the pool's is; the id is of letters and digits that every cloud takes."""
    import re

    from tasks.node import NAME_PATTERN

    claim = await book_of(ledger, clock).order(pool, RUNG, reason="", expires_at=0.0)
    assert re.fullmatch(NAME_PATTERN, claim.node)
    assert re.fullmatch("[a-z2-7]{10}", claim.id)
    assert claim.node.endswith(f"-{claim.id}")
