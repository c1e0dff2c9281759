"""What a node takes for new: memory is bounded, and nothing that ran is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.envelope import Delivery, seal
from tasks.errors import BadDelivery
from worker.admit import SEEN_MAX, Admission
from worker.testing.executor_bench import KEY, POOL_KEY, Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node with two slots and a good lease."""
    bench = Bench(tmp_path)
    yield bench
    await bench.journal.close()


async def test_a_delivery_that_is_no_longer_remembered_is_not_new(bench: Bench) -> None:
    """Redis was restored from a snapshot: what ran before 65,536 others does not run again, by whichever leader."""
    admission = bench.executor._admission
    old = seal(bench.delivery("old", number=(3, 17)), KEY)
    bench.executor.deliver(*old)
    await bench.ended("old")
    bench.executor.settled([("old", 1)])
    for number in range(SEEN_MAX):
        admission.remember_delivery(bench.delivery(f"x{number}", number=(4, number)))
    bench.executor.deliver(*old)
    bench.deliver("late", number=(3, 16))  # was never here: it goes out again, with a number of its own
    bench.deliver("new", number=(4, SEEN_MAX))
    await bench.ended("new")
    assert bench.servers.calls == ["old", "new"]
    assert bench.meter.refusals == ["number", "number"]


def test_a_void_that_is_no_longer_remembered_still_holds() -> None:
    """It was lost in transit and voided; many voids later it arrives after all."""
    admission = Admission(node="a1", incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1, seen_max=2)
    for number in range(3):
        admission.void(f"i{number}", 1, newest=(1, 10 + number))
    for number, why in [(9, "number"), (10, "number"), (11, None)]:
        delivery = replace(Bench.delivery("i0"), number=(1, number))
        assert _refusal(admission, delivery) == why


def test_numbers_may_come_in_any_order_while_they_are_remembered() -> None:
    """Two queues, two leaders: only what is older than everything remembered is refused."""
    admission = Admission(node="a1", incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1, seen_max=3)
    for number in [(2, 1), (1, 9), (1, 7)]:
        delivery = Bench.delivery(f"i{number}", number=number)
        assert _refusal(admission, delivery) is None
        admission.remember_delivery(delivery)
    assert _refusal(admission, Bench.delivery("other", number=(1, 8))) is None


def test_an_orchestrator_that_gives_no_numbers_is_understood() -> None:
    """An older one may lead during an upgrade: its deliveries are judged by what is remembered, as they were."""
    admission = Admission(node="a1", incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1, seen_max=1)
    for number in [(1, 1), (1, 2), (1, 3)]:
        admission.remember_delivery(Bench.delivery(f"i{number}", number=number))
    assert _refusal(admission, Bench.delivery("plain")) is None


async def test_what_is_held_is_not_taken_twice_however_long_ago_it_came(bench: Bench) -> None:
    """A late-bound delivery has no number of use, and its claim would be granted again before it is settled."""
    body, mac = seal(bench.delivery("late", node=None, incarnation=None), POOL_KEY)
    bench.executor.deliver(body, mac)
    bench.pool.asked["late", 1](True)
    await bench.ended("late")
    bench.executor._admission._seen.clear()
    bench.executor.deliver(body, mac)
    assert bench.meter.refusals == ["fence"]


def _refusal(admission: Admission, delivery: Delivery) -> str | None:
    try:
        admission.judge(delivery)
    except BadDelivery as refused:
        return refused.why
    return None


def test_memory_of_fences_is_bounded() -> None:
    """A node that runs for months does not remember every call it ever ran."""
    admission = Admission(node="a1", incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1)
    for number in range(SEEN_MAX + 10):
        admission.remember(f"i{number}", 1)
        admission.cancel((f"c{number}", 1))
    assert len(admission._seen) == len(admission._cancelled) == SEEN_MAX
