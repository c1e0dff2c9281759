"""What Flower is told: real Celery events, received by Celery's own receiver, over a real Redis."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from orchestrator.happenings import AttemptEnded, AttemptReleased
from orchestrator.observability.flower_feed import FlowerFeed
from tasks.app import make_app
from tasks.clock import SystemClock
from tasks.invocation import Lane, State

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN_S = 30.0
RELEASED = AttemptReleased("id-1", 1, "git.git_log", "shop", "general", "a1", Lane.TOOLS, "q", 1.0, 0.0, ())
ENDED = AttemptEnded(
    "id-1",
    1,
    "git.git_log",
    "shop",
    "general",
    "a1",
    Lane.TOOLS,
    State.SUCCEEDED,
    "succeeded",
    1.0,
    2.0,
    3.5,
    1,
    None,
    None,
)


@dataclass
class Ear:
    """Celery's receiver in a thread, and what it heard."""

    events: list[dict[str, Any]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    receiver: Any = None

    def hear(self, event: dict[str, Any]) -> None:
        """One event."""
        self.events.append(event)
        if event["type"].startswith("task-") and event["type"] != "task-received":
            self.arrived.set()

    def of(self, uuid: str) -> list[dict[str, Any]]:
        """What was said of one task."""
        return [event for event in self.events if event.get("uuid") == uuid]


@pytest.fixture
def told(valkey: Any) -> Iterator[tuple[FlowerFeed, Ear]]:
    """A feed and somebody who listens to it as Flower does."""
    app, ear = make_app(valkey.url), Ear()
    feed = FlowerFeed(
        make_app(valkey.url),
        Redis.from_url(valkey.url),
        nodes=list,
        is_late=lambda _: False,
        past=tuple,
        leads=lambda: True,
        clock=SystemClock(),
    )
    feed.start()
    listener = threading.Thread(target=_listen, args=(app, ear), daemon=True)
    listener.start()
    deadline = time.monotonic() + WITHIN_S
    while not feed.is_heard and time.monotonic() < deadline:
        listener.join(0.05)
    yield feed, ear
    ear.receiver.should_stop = True
    feed.stop()
    listener.join(5)


def _listen(app: Any, ear: Ear) -> None:
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": ear.hear})
        ear.receiver = receiver
        receiver.capture(limit=None, timeout=None, wakeup=False)


def test_a_task_is_shown_with_tool_project_node_and_runtime(told: tuple[FlowerFeed, Ear]) -> None:
    """Everything an operator looks for, and neither arguments nor results."""
    feed, ear = told
    feed.hear(RELEASED)
    feed.hear(ENDED)
    assert ear.arrived.wait(WITHIN_S)
    received, started, succeeded = ear.of("id-1")
    assert (received["name"], received["hostname"], received["args"]) == ("git.git_log", "a1", "(sealed)")
    assert "'project': 'shop'" in received["kwargs"]
    assert (started["type"], succeeded["type"], succeeded["runtime"]) == ("task-started", "task-succeeded", 1.5)
    assert succeeded["result"] == "'succeeded'"


def test_a_late_bound_task_is_shown_on_the_node_that_took_it(told: tuple[FlowerFeed, Ear]) -> None:
    """A pool is no worker: nothing is said before a node is known."""
    feed, ear = told
    feed.hear(replace(RELEASED, invocation_id="id-2", node=None))
    feed.hear(replace(ENDED, invocation_id="id-2"))
    assert ear.arrived.wait(WITHIN_S)
    assert {event["hostname"] for event in ear.of("id-2")} == {"a1"}
    assert ear.of("id-2")[0]["type"] == "task-received"
