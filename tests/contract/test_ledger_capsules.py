"""The ledger keeps the newest session capsule of a call, from the attempt that holds it now and from nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import accepted, again, failure, new, released, success, unreachable
from orchestrator.ledger.values import CapsuleKept, CapsuleSaved, Settlement

REFUSED = CapsuleKept(took=False)


def _saved(invocation_id: str, blob: str, number: int, *, fence: int = 1, node: str = "n1") -> CapsuleSaved:
    return CapsuleSaved(invocation_id, fence, node, number, blob)


async def test_the_newest_capsule_is_kept_and_the_next_attempt_hears_of_it(ledger: Ledger) -> None:
    """And says which blob nobody needs any more."""
    (call,) = await accepted(ledger, new())
    await released(ledger, [call])
    first, second = await ledger.keep_capsules([_saved(call, "c1", 1), _saved(call, "c2", 2)])
    assert (first, second) == (CapsuleKept(took=True), CapsuleKept(took=True, replaced="c1"))
    assert (await ledger.get(call)).capsule == "c2"
    assert await ledger.blob_references(after=0, limit=9) == (["c2"], None)
    await ledger.settle([again(call)])
    (released_again,) = await released(ledger, [call], fence=1, node="n2")
    assert (released_again.fence, released_again.capsule) == (2, "c2")
    assert await ledger.keep_capsules([_saved(call, "c3", 3, fence=2, node="n2")]) == [CapsuleKept(True, "c2")]


async def test_a_capsule_of_a_superseded_attempt_is_refused(ledger: Ledger) -> None:
    """By its fence; by its node; by its number; and between two attempts."""
    (call,) = await accepted(ledger, new())
    await released(ledger, [call])
    assert await ledger.keep_capsules([_saved(call, "c5", 5)]) == [CapsuleKept(took=True)]
    wrong = [_saved(call, "x", 6, node="n2"), _saved(call, "x", 5), _saved(call, "x", 4), _saved("nobody", "x", 1)]
    assert await ledger.keep_capsules(wrong) == [REFUSED] * 4
    await ledger.settle([again(call)])
    assert await ledger.keep_capsules([_saved(call, "x", 6)]) == [REFUSED]
    await released(ledger, [call], fence=1)  # to the same node: what it still has of the old attempt is no part of it
    assert await ledger.keep_capsules([_saved(call, "x", 6), _saved(call, "x", 6, fence=3)]) == [REFUSED] * 2
    assert (await ledger.get(call)).capsule == "c5"


async def test_a_node_that_is_out_of_reach_still_saves(ledger: Ledger) -> None:
    """Its stream may get through where its renewals do not; it holds the call until it is superseded."""
    (call,) = await accepted(ledger, new())
    await released(ledger, [call])
    await ledger.settle([unreachable(call)])
    assert await ledger.keep_capsules([_saved(call, "c1", 1)]) == [CapsuleKept(took=True)]


@pytest.mark.parametrize("end", [success, failure])
async def test_a_call_that_ended_holds_no_capsule(ledger: Ledger, end: Callable[[str], Settlement]) -> None:
    """Nobody goes on from it: its blob may go, and no late one comes."""
    (call,) = await accepted(ledger, new())
    await released(ledger, [call])
    await ledger.keep_capsules([_saved(call, "c1", 1)])
    await ledger.settle([end(call)])
    assert await ledger.keep_capsules([_saved(call, "c2", 2)]) == [REFUSED]
    assert (await ledger.get(call)).capsule is None
    assert await ledger.blob_references(after=0, limit=9) == ([], None)
