"""The leader's forgetting, on a real ledger and a real disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.blobs.disk import DiskBlobs
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, failure, new, released, success
from orchestrator.ledger.values import CostsBy, CostsQuery
from orchestrator.retention import DAY_S, SLICE_ROWS, Days, Retention
from tasks.errors import NotFound
from tasks.outcome import Outcome
from tasks.spend import Spend
from tasks.testing.clock import FakeClock

LONG_AGO = AT - 400 * DAY_S


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    """A store on a disk of its own."""
    return DiskBlobs(tmp_path / "blobs")


def _retention(ledger: Ledger, blobs: DiskBlobs, clock: FakeClock, days: Days | None = None) -> Retention:
    return Retention(books=ledger, blobs=blobs, days=days or Days(), clock=clock, pause_s=0.0)


async def _ended(ledger: Ledger, count: int, *, is_dead: bool = False) -> list[str]:
    """So many calls that ended at AT + 2."""
    ids = await accepted(ledger, *(new() for _ in range(count)))
    await released(ledger, ids)
    await ledger.settle([failure(one) if is_dead else success(one) for one in ids])
    return ids


async def _age(blobs_at: Path, digest: str) -> None:
    os.utime(blobs_at / "blobs" / digest[:2] / digest[2:], (LONG_AGO, LONG_AGO))


async def test_ended_calls_go_after_their_days(ledger: Ledger, blobs: DiskBlobs, clock: FakeClock) -> None:
    """Not a day before; more of them than fit one slice."""
    calls = await _ended(ledger, SLICE_ROWS + 5)
    retention = _retention(ledger, blobs, clock)
    clock.advance(29 * DAY_S)
    await retention.forget_ended()
    assert (await ledger.get(calls[-1])).id == calls[-1]
    clock.advance(2 * DAY_S)
    await retention.forget_ended()
    for call in (calls[0], calls[-1]):
        with pytest.raises(NotFound):
            await ledger.get(call)


@pytest.mark.parametrize(
    ("days", "case"),
    [
        pytest.param(Days(30, 90), (60, True), id="a dead letter waits longer"),
        pytest.param(Days(30, 90), (91, False), id="but not for ever"),
        pytest.param(Days(30, 0), (10_000, True), id="unless told so"),
        pytest.param(Days(0, 90), (10_000, True), id="nothing is forgotten"),
        pytest.param(Days(30, 1), (20, True), id="never before what is not dead"),
    ],
)
async def test_a_dead_letter_waits_for_its_operator(
    ledger: Ledger, blobs: DiskBlobs, clock: FakeClock, days: Days, case: tuple[float, bool]
) -> None:
    """It has days of its own."""
    after_days, is_kept = case
    (dead,) = await _ended(ledger, 1, is_dead=True)
    clock.advance(after_days * DAY_S)
    await _retention(ledger, blobs, clock, days).forget_ended()
    letters, _ = await ledger.dead_letters(tenant=None)
    assert [letter.invocation_id for letter in letters] == ([dead] if is_kept else [])


async def test_a_blob_goes_once_nothing_names_it(
    ledger: Ledger, blobs: DiskBlobs, clock: FakeClock, tmp_path: Path
) -> None:
    """Arguments and results stay while their call is kept, and what was just stored is never taken."""
    arguments, result, nobodys, fresh = [await blobs.put(word * 9) for word in (b"a", b"b", b"c", b"d")]
    (call,) = await accepted(ledger, new(blob=arguments, arguments_json="{}"))
    await released(ledger, [call])
    await ledger.settle([replace(success(call), outcome=Outcome("succeeded", result_blob=result))])
    for old in (arguments, result, nobodys):
        await _age(tmp_path, old)
    os.utime(tmp_path / "blobs" / fresh[:2] / fresh[2:], (AT, AT))
    retention = _retention(ledger, blobs, clock)
    await retention.forget_blobs()
    assert [await blobs.get(kept) for kept in (arguments, result, fresh)]
    with pytest.raises(NotFound):
        await blobs.get(nobodys)
    clock.advance(31 * DAY_S)
    await retention.forget_ended()
    await retention.forget_blobs()
    for gone in (arguments, result, fresh):
        with pytest.raises(NotFound):
            await blobs.get(gone)


async def test_what_is_stored_again_is_not_forgotten(blobs: DiskBlobs, tmp_path: Path) -> None:
    """The same bytes for a new call: the old file counts as new, though it was condemned already."""
    digest = await blobs.put(b"the same")
    await _age(tmp_path, digest)

    def stored_meanwhile(_digest: str) -> bool:
        os.utime(tmp_path / "blobs" / digest[:2] / digest[2:], (AT, AT))  # what a put does to it
        return False

    assert await blobs.forget(older_than=AT - DAY_S, is_kept=stored_meanwhile) == 0
    assert await blobs.get(digest) == b"the same"
    await _age(tmp_path, digest)
    await blobs.put(b"the same")
    assert await blobs.forget(older_than=LONG_AGO + DAY_S, is_kept=lambda _: False) == 0


async def test_what_a_dead_process_was_writing_is_cleared_away(blobs: DiskBlobs, tmp_path: Path) -> None:
    """A draft nobody will finish goes; one of a minute ago may be under way."""
    for name, at in (("old", LONG_AGO), ("new", AT)):
        draft = tmp_path / "blobs" / "incoming" / name
        draft.write_bytes(b"half of it")
        os.utime(draft, (at, at))
    await blobs.forget(older_than=AT - DAY_S, is_kept=lambda _: True)
    assert [path.name for path in (tmp_path / "blobs" / "incoming").iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("days", "left"),
    [
        pytest.param(Days(spend=400), 2, id="longer than calls"),
        pytest.param(Days(spend=100), 1, id="past their days"),
        pytest.param(Days(spend=0), 3, id="for ever"),
        pytest.param(Days(spend=1, ended=30, dead=300), 2, id="never shorter than calls"),
        pytest.param(Days(spend=100, dead=0), 3, id="for ever, as dead letters are"),
    ],
)
async def test_bills_outlive_calls(ledger: Ledger, blobs: DiskBlobs, clock: FakeClock, days: Days, left: int) -> None:
    """Kept for their own days, at least as long as any call; more of them than fit one slice."""
    ages = [0.0] + [200.0] + [500.0] * (SLICE_ROWS + 3)
    ids = await accepted(ledger, *(new() for _ in ages))
    await released(ledger, ids)
    spent = (Spend("glm-5", 1, 1, cost_usd=0.5),)
    await ledger.settle(
        [replace(success(one), spent=spent, at=AT - age * DAY_S) for one, age in zip(ids, ages, strict=True)]
    )
    await _retention(ledger, blobs, clock, days).forget_spend()
    _, total = await ledger.costs(CostsQuery(CostsBy.NODE, "default", 0.0, AT + 1))
    assert total.calls == (len(ages) if left == 3 else left)
