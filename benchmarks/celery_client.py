"""Bare Celery's client: `delay().get()`, in as many threads as there are callers."""

from __future__ import annotations

from benchmarks.celery_app import echo
from benchmarks.load import ANSWER_WITHIN_S, MESSAGE, obey_blocking


def call() -> None:
    """One call and its answer."""
    answer = echo.delay(MESSAGE).get(timeout=ANSWER_WITHIN_S)
    assert answer["content"][0]["text"] == MESSAGE


if __name__ == "__main__":
    obey_blocking(call)
