# mypy: disable-error-code="no-untyped-call,attr-defined"
# kombu ships types for a part of itself only.
"""Feeds Flower from the ledger's happenings, in Celery's own event format, in batches.

Celery's per-task events triple a worker's cost; here one message carries hundreds, and none is made
while nobody listens. Shows tool, project, node, attempts and runtime; never arguments or results.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from celery import Celery
from celery.events.event import get_exchange
from kombu import Producer
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from orchestrator.happenings import AttemptEnded, AttemptReleased, AttemptRunning, Happening
from tasks.clock import Clock
from tasks.invocation import State
from tasks.node import NodeState
from tasks.wire import NodeView

log = structlog.get_logger("mcpfleet.flower")
FLUSH_EVERY_S = 0.5
BUFFER_MAX_EVENTS = 20_000
"""Past it the oldest are dropped: Flower is a view, the ledger has the history."""
HEARTBEAT_EVERY_S = 4.0
SOFTWARE = {"sw_ident": "mcpfleet", "sw_sys": "Linux"}
Event = dict[str, Any]


class FlowerFeed:
    """A listener of `Happenings`; a thread publishes what it buffered."""

    def __init__(self, app: Celery, redis: Redis, *, nodes: Callable[[], list[NodeView]], clock: Clock) -> None:
        self._app, self._redis, self._nodes, self._clock = app, redis, nodes, clock
        self._events: deque[Event] = deque(maxlen=BUFFER_MAX_EVENTS)
        self._late: set[str] = set()
        """Released to a pool: which worker took them is known at their end only."""
        self._is_heard = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcpfleet-flower", daemon=True)
        self._tick = 0

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
                self._events.append(self._received(happening, happening.node, happening.at))
            case AttemptRunning():
                self._events.append(self._event("task-started", happening.node, happening.at, happening.invocation_id))
            case AttemptEnded():
                self._events.extend(self._ended(happening))
            case _:
                return

    def _received(self, seen: AttemptReleased | AttemptEnded, node: str | None, at: float) -> Event:
        event = self._event("task-received", node or "-", at, seen.invocation_id)
        event |= {
            "name": seen.tool,
            "args": "(sealed)",
            "kwargs": f"{{'project': {seen.project!r}, 'pool': {seen.pool!r}, 'attempt': {seen.fence}}}",
            "retries": seen.fence - 1,
            "eta": None,
            "expires": None,
            "root_id": seen.invocation_id,
            "parent_id": None,
        }
        return event

    def _ended(self, ended: AttemptEnded) -> Iterable[Event]:
        node, uuid = ended.node or "-", ended.invocation_id
        if uuid in self._late:
            self._late.discard(uuid)
            yield self._received(ended, node, ended.released_at)
        if ended.started_at is not None:
            yield self._event("task-started", node, ended.started_at, uuid)
        runtime_s = max(0.0, ended.at - (ended.started_at or ended.released_at))
        why = f"{ended.error.code}" if ended.error else ended.ending
        match ended.to:
            case State.SUCCEEDED:
                end = {"type": "task-succeeded", "result": "'succeeded'", "runtime": runtime_s}
            case State.WAITING:
                end = {"type": "task-retried", "exception": why, "traceback": ""}
            case State.CANCELLED | State.EXPIRED:
                end = {"type": "task-revoked", "terminated": True, "expired": ended.to is State.EXPIRED, "signum": None}
            case _:
                end = {"type": "task-failed", "exception": why, "traceback": ""}
        yield self._event(str(end["type"]), node, ended.at, uuid) | end

    def _event(self, kind: str, node: str, at: float, uuid: str) -> Event:
        self._tick += 1
        return {
            "type": kind,
            "uuid": uuid,
            "hostname": node,
            "timestamp": at,
            "local_received": at,
            "clock": self._tick,
            "utcoffset": 0,
            "pid": 0,
        }

    def _run(self) -> None:
        beat_s = 0.0
        while not self._stopping.wait(FLUSH_EVERY_S):
            try:
                self._is_heard = self._listeners() > 0
                if not self._is_heard:
                    self._events.clear()
                    self._late.clear()
                    continue
                if self._clock.mono_s() - beat_s >= HEARTBEAT_EVERY_S:
                    beat_s = self._clock.mono_s()
                    self._events.extend(self._heartbeats())
                self._flush()
            except (OperationalError, RedisError, OSError) as error:
                log.info("flower_feed_unavailable", error=str(error) or type(error).__name__)
            except Exception:
                log.exception("flower_feed_failed")

    def _listeners(self) -> int:
        # Celery's event receivers subscribe to patterns (kombu's fanout_patterns), which NUMSUB does not count.
        reply: Any = self._redis.pubsub_numpat()
        return int(reply)

    def _heartbeats(self) -> list[Event]:
        now_s = self._clock.wall_s()
        beats = []
        for node in self._nodes():
            is_up = node.state in (NodeState.ACTIVE, NodeState.CORDONED, NodeState.DRAINING)
            beat = self._event("worker-heartbeat" if is_up else "worker-offline", node.name, now_s, "")
            del beat["uuid"]
            load = [round(node.cpu, 2), round(node.memory, 2), 0]
            running = sum(node.running.values())
            beat |= {"freq": HEARTBEAT_EVERY_S, "active": running, "processed": 0, "loadavg": load, **SOFTWARE}
            beat["sw_ver"] = node.version
            beats.append(beat)
        return beats

    def _flush(self) -> None:
        batch = [self._events.popleft() for _ in range(len(self._events))]
        if not batch:
            return
        with self._app.connection_for_write() as connection:
            exchange = get_exchange(connection)
            Producer(connection, exchange, serializer="json").publish(
                batch, routing_key="task.multi", headers={"hostname": "mcpfleet"}, delivery_mode=1
            )
