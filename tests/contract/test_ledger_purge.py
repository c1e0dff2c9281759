"""Forgetting: what ended long ago goes whole, everything else stays, and a slice is small."""

from __future__ import annotations

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, failure, new, released, success
from orchestrator.ledger.values import Filter, Purge
from tasks.errors import NotFound

LATER = AT + 1000
"""Everything of these tests happened before."""


def _all(*, ended_before: float = LATER, dead_before: float = LATER, after: int = 0, limit: int = 100) -> Purge:
    return Purge(after, limit, ended_before, dead_before)


async def _ids(ledger: Ledger) -> set[str]:
    found, _ = await ledger.listing(Filter(), limit=100)
    return {one.id for one in found}


async def test_what_ended_goes_with_its_attempts_and_its_dead_letter(ledger: Ledger) -> None:
    """Nothing of it is found any more, and its id may be used again without its old attempts."""
    good, bad = await accepted(ledger, new(invocation_id="good-one"), new(invocation_id="dead-one"))
    await released(ledger, [good, bad])
    await ledger.settle([success(good), failure(bad)])
    assert (await ledger.purge(_all())).deleted == 2
    for gone in (good, bad):
        with pytest.raises(NotFound):
            await ledger.get(gone)
    assert await ledger.dead_letters(tenant=None) == ([], None)
    await accepted(ledger, new(invocation_id="good-one"))
    await released(ledger, ["good-one"])
    assert len((await ledger.get("good-one")).attempts) == 1


async def test_what_has_not_ended_stays_however_old(ledger: Ledger) -> None:
    """Waiting and outstanding calls are nobody's to forget."""
    waiting, outstanding = await accepted(ledger, new(), new())
    await released(ledger, [outstanding])
    assert (await ledger.purge(_all(ended_before=AT + 1e9, dead_before=AT + 1e9))).deleted == 0
    assert await _ids(ledger) == {waiting, outstanding}


async def test_what_ended_lately_stays(ledger: Ledger) -> None:
    """By its end, not by its acceptance: a call that waited for a month was answered today."""
    (call,) = await accepted(ledger, new(at=AT - 1e6))
    await released(ledger, [call])
    await ledger.settle([success(call)])  # at AT + 2
    assert (await ledger.purge(_all(ended_before=AT + 1))).deleted == 0
    assert (await ledger.purge(_all(ended_before=AT + 3))).deleted == 1


async def test_an_unanswered_dead_letter_keeps_its_call(ledger: Ledger) -> None:
    """Until its own, longer time; one that was replayed or discarded goes with the others."""
    kept, replayed, discarded = await accepted(ledger, new(), new(), new())
    await released(ledger, [kept, replayed, discarded])
    await ledger.settle([failure(one) for one in (kept, replayed, discarded)])
    (again,) = await accepted(ledger, new(replay_of=replayed, at=LATER))
    await ledger.discard_dead([discarded])
    assert (await ledger.purge(_all(dead_before=AT))).deleted == 2
    assert await _ids(ledger) == {kept, again}
    assert (await ledger.purge(_all())).deleted == 1


async def test_an_idempotency_key_holds_as_long_as_its_call_is_kept(ledger: Ledger) -> None:
    """Until it is forgotten the key finds the call; then it makes a new one."""
    (first,) = await accepted(ledger, new(idempotency_key="k"))
    await released(ledger, [first])
    await ledger.settle([success(first)])
    assert await accepted(ledger, new(idempotency_key="k")) == [first]
    await ledger.purge(_all())
    (second,) = await accepted(ledger, new(idempotency_key="k"))
    assert second != first


async def test_a_pass_goes_on_slice_by_slice_and_ends_at_what_is_young(ledger: Ledger) -> None:
    """Each slice says where the next begins, also when nothing of it could go."""
    ids = await accepted(ledger, *(new() for _ in range(5)))
    await released(ledger, ids)
    await ledger.settle([success(one) for one in ids[2:]])
    young = await accepted(ledger, new(at=LATER), new(at=LATER), new(at=LATER))
    deleted, after, slices = 0, 0, 0
    while after is not None:
        purged = await ledger.purge(_all(after=after, limit=2))
        deleted, after, slices = deleted + purged.deleted, purged.after, slices + 1
    assert (deleted, slices) == (3, 3), "five old rows, two at a time, and the third slice meets a young one"
    assert await _ids(ledger) == {*ids[:2], *young}


async def test_every_blob_that_a_row_names_is_listed(ledger: Ledger) -> None:
    """Arguments and results, page by page."""
    blobs = [f"{number:064x}" for number in range(5)]
    await accepted(ledger, *(new(blob=blob, arguments_json="{}") for blob in blobs), new())
    found, after = [], 0
    while after is not None:
        page, after = await ledger.blob_references(after=after, limit=2)
        found += page
    assert found == blobs
