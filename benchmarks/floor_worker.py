"""The raw floor's worker: pop, answer, push. No acknowledgement, no routing, no record of anything."""

from __future__ import annotations

import json
import os

import redis

CALLS, ANSWERS = "floor.calls", "floor.answers"


def main() -> None:
    """Until killed."""
    client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
    while True:
        popped = client.brpop([CALLS], timeout=2)
        if popped is None:
            continue
        call = json.loads(popped[1])
        client.lpush(ANSWERS, json.dumps({"id": call["id"], "text": call["text"]}))


if __name__ == "__main__":
    main()
