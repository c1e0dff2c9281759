# mypy: disable-error-code="no-untyped-call,attr-defined"
# kombu ships types for a part of itself only.
"""Feeds Flower from the ledger's happenings, in Celery's own event format, in batches.

Celery's per-task events triple a worker's cost; here one message carries hundreds, and none is made while
nobody listens. A Flower that was started asks for the past (`orchestrator/flower/listening.py`) and is told it
from the ledger. What is said: `flower_events.py`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from celery import Celery
from celery.events.event import get_exchange
from kombu import Producer
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from orchestrator.happenings import AttemptEnded, AttemptReleased, AttemptRunning, Happening
from orchestrator.observability import flower_events
from orchestrator.observability.flower_events import SENDER, Event
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import Invocation
from tasks.queues import FLOWER_ASKS
from tasks.wire import NodeView

log = structlog.get_logger("mcpfleet.flower")
FLUSH_EVERY_S = 0.5
BUFFER_MAX_EVENTS = 20_000
"""Past it the oldest are dropped: Flower is a view, the ledger has the history."""
MESSAGE_MAX_EVENTS = 500
"""About 200 KB."""
HEARTBEAT_EVERY_S = 4.0
ASKS_AT_ONCE = 16

Past = Callable[[], Sequence[Invocation]]
"""The newest calls, oldest first. May raise FleetError, and TimeoutError."""


class FlowerFeed:
    """A listener of `Happenings`; a thread publishes what it buffered, and the past to who asks for it."""

    def __init__(
        self,
        app: Celery,
        redis: Redis,
        *,
        nodes: Callable[[], list[NodeView]],
        is_late: Callable[[str], bool],
        past: Past,
        leads: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._app, self._redis, self._nodes, self._clock = app, redis, nodes, clock
        self._is_late, self._past, self._leads = is_late, past, leads
        self._events: deque[Event] = deque(maxlen=BUFFER_MAX_EVENTS)
        self._late: set[str] = set()
        """Released to a pool: which worker took them is known at their end only."""
        self._shown: set[str] = set()
        """Nodes that Flower was told of."""
        self._asked: list[str] = []
        """Who wants the past, and was not told it yet."""
        self._is_heard = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcpfleet-flower", daemon=True)

    @property
    def is_heard(self) -> bool:
        """Somebody listens to Celery's events."""
        return self._is_heard

    def start(self) -> None:
        """Start the publishing thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End it; what is buffered is published if the broker answers."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def hear(self, happening: Happening) -> None:
        """Buffer what Flower shows. Costs nothing while nobody listens."""
        if not self._is_heard:
            return
        match happening:
            case AttemptReleased() if happening.node is None:
                self._late.add(happening.invocation_id)
            case AttemptReleased():
                self._events.append(flower_events.released(happening))
            case AttemptRunning():
                self._events.append(flower_events.running(happening.invocation_id, happening.node, happening.at))
            case AttemptEnded():
                is_new = happening.invocation_id in self._late
                self._late.discard(happening.invocation_id)
                self._events.extend(flower_events.ended(happening, with_received=is_new))
            case _:
                return

    def _run(self) -> None:
        beat_s = 0.0
        while not self._stopping.wait(FLUSH_EVERY_S):
            try:
                self._is_heard = self._leads() and self._has_listeners()
                if not self._is_heard:
                    self._forget()
                    continue
                if self._clock.mono_s() - beat_s >= HEARTBEAT_EVERY_S:
                    beat_s = self._clock.mono_s()
                    self._events.extend(self._heartbeats())
                self._publish([self._events.popleft() for _ in range(len(self._events))])
                if self._asked:
                    self._tell_past()
            except (OperationalError, RedisError, OSError, FleetError) as error:
                log.info("flower_feed_unavailable", error=str(error) or type(error).__name__)
            except Exception:
                log.exception("flower_feed_failed")

    def _forget(self) -> None:
        self._events.clear()
        self._late.clear()
        self._asked.clear()

    def _has_listeners(self) -> bool:
        # Celery's event receivers subscribe to patterns (kombu's fanout_patterns), which NUMSUB does not count.
        pipeline: Any = self._redis.pipeline(transaction=False)
        patterns, asked = pipeline.pubsub_numpat().spop(FLOWER_ASKS, ASKS_AT_ONCE).execute()
        self._asked += [token.decode() for token in asked]
        return int(patterns) > 0

    def _tell_past(self) -> None:
        events = list(flower_events.past(self._past()))
        asked, self._asked = self._asked, []
        self._publish([*events, flower_events.told(asked, self._clock.wall_s())])
        log.info("flower_told_the_past", events=len(events))

    def _heartbeats(self) -> list[Event]:
        now_s, nodes = self._clock.wall_s(), self._nodes()
        beats = [
            flower_events.heartbeat(node, now_s, every_s=HEARTBEAT_EVERY_S, is_late=self._is_late(node.pool))
            for node in nodes
        ]
        names = {node.name for node in nodes}
        beats += [flower_events.gone(name, now_s) for name in self._shown - names]
        self._shown = names
        return beats

    def _publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        with self._app.connection_for_write() as connection:
            producer = Producer(connection, get_exchange(connection), serializer="json")
            for first in range(0, len(events), MESSAGE_MAX_EVENTS):
                producer.publish(
                    events[first : first + MESSAGE_MAX_EVENTS],
                    routing_key="task.multi",
                    headers={"hostname": SENDER},
                    delivery_mode=1,
                )
