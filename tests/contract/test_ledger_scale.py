"""What the ledger remembers for the autoscaler."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.values import ClaimRow, EnrolmentRow, ScaleLogRow, ScalePoolRow

CLAIM = ClaimRow("aaaa", "builders", "builders-aaaa", "booting", 10.0, 10.0, '{"id":"aaaa"}')
ENROLMENT = EnrolmentRow("builders-aaaa", "builders", "digest", 70.0)


async def test_a_claim_is_as_it_was_saved_last(ledger: Ledger) -> None:
    """A restarted orchestrator goes on where the last one wrote."""
    later = replace(CLAIM, id="bbbb", created_at=11.0)
    await ledger.save_claim(later)
    await ledger.save_claim(CLAIM)
    ready = replace(CLAIM, state="ready", state_at=12.0, body_json='{"id":"aaaa","address":"10.0.0.9"}')
    await ledger.save_claim(ready)
    assert await ledger.claims() == [ready, later]


async def test_only_what_is_gone_long_ago_is_forgotten(ledger: Ledger) -> None:
    """A machine that may still exist stays in the book, however old."""
    gone, lately = replace(CLAIM, state="gone"), replace(CLAIM, id="bbbb", state="gone", state_at=30.0)
    old = replace(CLAIM, id="cccc", state="terminating")
    for row in (gone, lately, old):
        await ledger.save_claim(row)
    assert await ledger.forget_claims(20.0) == 1
    assert {row.id for row in await ledger.claims()} == {"bbbb", "cccc"}


async def test_an_enrolment_is_replaced_and_voided_by_name(ledger: Ledger) -> None:
    """One name, one token at a time."""
    await ledger.save_enrolment(ENROLMENT)
    used = replace(ENROLMENT, credential_digest="of-the-node", used_at=20.0)
    await ledger.save_enrolment(used)
    assert await ledger.enrolments() == [used]
    await ledger.forget_enrolment("builders-aaaa")
    assert await ledger.enrolments() == []


async def test_a_pool_is_remembered_as_saved(ledger: Ledger) -> None:
    """Shape, season and override, each or none."""
    await ledger.save_scale_pool(ScalePoolRow("builders", shape_json="{}"))
    await ledger.save_scale_pool(ScalePoolRow("builders", season_json="[1]"))
    assert await ledger.scale_pools() == [ScalePoolRow("builders", season_json="[1]")]


async def test_the_log_gives_the_newest_in_order(ledger: Ledger) -> None:
    """By pool, between two moments, at most so many; what is old can be forgotten."""
    rows = [ScaleLogRow("ab"[number % 2], float(number), f"[{number}]", "{}") for number in range(8)]
    for row in rows:
        await ledger.log_scale(row)
    assert await ledger.scale_log("a", 2.0, 10) == rows[2::2]
    assert await ledger.scale_log(None, 0.0, 3) == rows[5:]
    assert await ledger.scale_log("a", 0.0, 2, until=4.5) == rows[2:5:2]
    assert await ledger.forget_scale_log(6.0) == 6
    assert await ledger.scale_log(None, 0.0, 10) == rows[6:]


async def test_a_superseded_leader_orders_no_machine(ledger: Ledger) -> None:
    """The claim is written before the cloud is asked, and its write is refused."""
    epoch = await ledger.take_epoch("o-1", 0.0)
    assert epoch is not None
    ledger.fence(epoch)
    assert await ledger.take_epoch("o-2", 60.0) == epoch + 1
    with pytest.raises(EpochLost):
        await ledger.save_claim(CLAIM)
    assert await ledger.claims() == []
