"""The slot of one attempt, left to others and taken again."""

from __future__ import annotations

import asyncio

from worker.lanes import LaneQueue
from worker.seats import Seat


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_two_questions_that_are_answered_at_once_take_one_slot_back() -> None:
    """One attempt has one slot, however many of its tools waited for a person."""
    queue: LaneQueue[str] = LaneQueue(slots=1, running=1)
    seat = Seat(queue, queue.seat)
    seat.leave()
    queue.running += 1  # another run has it
    both = [asyncio.create_task(seat.take_again()) for _ in range(2)]
    await _turns()
    assert not any(task.done() for task in both)
    queue.release()
    queue.seat()
    await asyncio.wait_for(asyncio.gather(*both), 10)
    assert queue.running == 1
    seat.leave()
    assert (queue.running, len(queue.returning)) == (0, 0)


async def test_a_wait_that_is_given_up_takes_nothing() -> None:
    """Also where another question of the run waited for the same."""
    queue: LaneQueue[str] = LaneQueue(slots=1, running=1)
    seat = Seat(queue, queue.seat)
    seat.leave()
    queue.running += 1
    first, second = (asyncio.create_task(seat.take_again()) for _ in range(2))
    await _turns()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    queue.release()
    queue.seat()
    await asyncio.wait_for(first, 10)
    assert queue.running == 1
