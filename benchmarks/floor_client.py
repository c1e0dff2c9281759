"""The raw floor's client: push a call, wait for its answer on one shared list."""

from __future__ import annotations

import asyncio
import itertools
import json
import os

from redis.asyncio import Redis

from benchmarks.floor_worker import ANSWERS, CALLS
from benchmarks.load import MESSAGE, obey


async def main() -> None:
    """Obey orders."""
    pusher, popper = (Redis.from_url(os.environ["BENCH_REDIS_URL"]) for _ in range(2))
    waiting: dict[int, asyncio.Future[str]] = {}
    numbers = itertools.count()

    async def listen() -> None:
        while True:
            popped = await popper.brpop([ANSWERS], timeout=2)
            if popped is not None:
                answer = json.loads(popped[1])
                waiting.pop(answer["id"]).set_result(answer["text"])

    async def call() -> None:
        number = next(numbers)
        waiting[number] = asyncio.get_running_loop().create_future()
        answered = waiting[number]
        await pusher.lpush(CALLS, json.dumps({"id": number, "text": MESSAGE}))
        assert await answered == MESSAGE

    listener = asyncio.create_task(listen())
    await obey(call)
    listener.cancel()


if __name__ == "__main__":
    asyncio.run(main())
