"""Stock Celery doing what `effects.put` does, for the comparison of failovers.

The environment says how it is set: PEER_BROKER, and PEER_OPTIONS as JSON (`late`, `transport`).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import Celery

OPTIONS = json.loads(os.environ.get("PEER_OPTIONS", "{}"))
app = Celery("peer", broker=os.environ.get("PEER_BROKER", "redis://127.0.0.1:1/0"), set_as_current=False)
app.conf.update(
    broker_transport_options=OPTIONS.get("transport", {}),
    task_acks_late=OPTIONS.get("late", False),
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


@app.task(name="peer.put")
def put(marks: str, key: str, seconds: float) -> None:
    """Leave a mark, take a while."""
    with Path(marks).open("a") as file:
        file.write(json.dumps({"key": key, "what": "effect", "pid": os.getpid(), "at": time.time()}) + "\n")
    time.sleep(seconds)
