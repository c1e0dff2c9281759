"""What the loop asks of Celery's thread is done in the order it was asked."""

from __future__ import annotations

from types import SimpleNamespace

from kombu.asynchronous import Hub

from tasks.invocation import Lane
from worker.bridge import CelerySide

QUEUE = "mcpfleet.p.default.tools"
TIMES = 100


def test_a_resume_never_overtakes_its_pause() -> None:
    """Kombu keeps what it is asked in a set; a lane that is resumed first and then paused would take nothing more."""
    done: list[str] = []
    hub = Hub()
    side = CelerySide(
        name="a1",
        redis_url="redis://127.0.0.1:1/0",
        queues=(QUEUE,),
        pool_queues={Lane.TOOLS: QUEUE},
        put=lambda _body, _mac: None,
        own_signals=lambda: None,
    )
    consumer = SimpleNamespace(
        cancel_task_queue=lambda _queue: done.append("paused"), add_task_queue=lambda _queue: done.append("resumed")
    )
    side._worker = SimpleNamespace(hub=hub, consumer=consumer)
    try:
        for _ in range(TIMES):
            side.pause(Lane.TOOLS)
            side.resume(Lane.TOOLS)
        hub.run_once()
    finally:
        hub.close()
    turned = [at for at, what in enumerate(done) if what != ("paused", "resumed")[at % 2]]
    assert (len(done), turned) == (2 * TIMES, [])
