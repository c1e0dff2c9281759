"""A slot that is left while a person thinks, and taken again."""

from __future__ import annotations

import asyncio

from worker.lanes import LaneQueue
from worker.seats import Seat


def _lane() -> tuple[LaneQueue[str], Seat]:
    """One slot, held; what waits starts as soon as there is room."""
    queue = LaneQueue[str](1, running=1)

    def fill() -> None:
        queue.seat()
        while queue.can_take:
            queue.take()

    return queue, Seat(queue, fill)


async def test_others_run_in_a_seat_that_is_left() -> None:
    """Once; and it is theirs until they end."""
    queue, seat = _lane()
    queue.waiting.append("other")
    seat.leave()
    seat.leave()
    assert (queue.running, list(queue.waiting)) == (1, [])
    back = asyncio.create_task(seat.take_again())
    await asyncio.wait({back}, timeout=0.1)
    assert not back.done()
    assert not queue.has_room


async def test_who_comes_back_goes_before_what_has_not_started() -> None:
    """It holds memory and a person's answer."""
    queue, seat = _lane()
    queue.waiting.append("other")
    seat.leave()
    other = Seat(queue, queue.seat)
    back = asyncio.create_task(seat.take_again())
    await asyncio.sleep(0)
    queue.waiting.append("a third")
    other.leave()
    await back
    assert (queue.running, list(queue.waiting)) == (1, ["a third"])
    await seat.take_again()
    assert queue.running == 1


async def test_who_is_cancelled_on_the_way_back_holds_nothing() -> None:
    """Neither a slot nor a place in the line."""
    queue, seat = _lane()
    queue.waiting.append("other")
    seat.leave()
    back = asyncio.create_task(seat.take_again())
    await asyncio.sleep(0)
    back.cancel()
    await asyncio.gather(back, return_exceptions=True)
    seat.leave()
    assert (queue.running, len(queue.returning)) == (1, 0)
