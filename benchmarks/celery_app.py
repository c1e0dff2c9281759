"""Bare Celery as its documentation sets it up: a broker, a result backend, one task. Nothing tuned."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("bench", broker=os.environ.get("BENCH_REDIS_URL"), backend=os.environ.get("BENCH_REDIS_URL"))


@app.task
def echo(text: str) -> dict[str, object]:
    """What an echo tool answers."""
    return {"content": [{"type": "text", "text": text}]}
