"""What Flower hears: Celery's events as Flower keeps them, and the past once it was asked for.

A Flower that starts, or that lost its broker, knows nothing of what was said before. It asks by a token in a
set in Redis, again and again until the orchestrator's feed has told the newest calls from the ledger and named
that token. Owns no history: killed at any moment, it is whole again seconds after its next start.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from typing import Any

from celery.events import EventReceiver
from flower.events import Events, EventsState
from redis.exceptions import RedisError
from tornado.ioloop import PeriodicCallback

from tasks.queues import FLOWER_ASKS
from tasks.redis_clients import sync_client

log = logging.getLogger("mcpfleet.flower")
ASK_EVERY_MS = 3000
ASK_KEPT_S = 60
ANSWER_S = 3.0
RECONNECT_S = 1.0
SAME_MOMENT_S = 0.001
"""The ledger keeps microseconds; two tellings of one event differ by rounding only."""
HISTORY, TOLD, FLEET = "history", "fleet-history", "fleet"
"""As `orchestrator/observability/flower_events.py` writes them."""
_NOTHING: dict[str, Any] = {"registered": [], "scheduled": [], "active": [], "reserved": [], "revoked": [], "conf": {}}


class FleetState(EventsState):  # type: ignore[misc]
    """Flower's own state, for which the past may be told twice, and which hears of queues by heartbeats."""

    def __init__(self, *, workers_shown: dict[str, Any], **rest: Any) -> None:  # noqa: ANN401 - Flower is untyped
        self.metrics: Any = None
        super().__init__(**rest)
        self._workers_shown = workers_shown

    def event(self, event: dict[str, Any]) -> None:
        """One event, unless it was heard before."""
        kind, _, subject = event["type"].partition("-")
        if kind == "task":
            if not self._is_known(event, subject):
                self._past(event) if event.get(HISTORY) else super().event(event)
        elif kind == "worker":
            super().event(event)
            self._show(event)

    def _is_known(self, event: dict[str, Any], subject: str) -> bool:
        task = self.tasks.data.get(event["uuid"])
        at = getattr(task, subject, None)
        return at is not None and (bool(event.get(HISTORY)) or abs(at - event["timestamp"]) < SAME_MOMENT_S)

    def _past(self, event: dict[str, Any]) -> None:
        """It beats no heart, and is no event for the metrics of this moment."""
        known = self.workers.data.get(event["hostname"])
        beats = list(known.heartbeats) if known is not None else []
        metrics, self.metrics = self.metrics, _NoMetrics()
        try:
            super().event(event)
        finally:
            self.metrics = metrics
        worker = self.workers.data.get(event["hostname"])
        if worker is not None:
            worker.heartbeats[:] = beats

    def _show(self, event: dict[str, Any]) -> None:
        if event["type"] == "worker-offline":
            self._workers_shown.pop(event["hostname"], None)
            self.workers.pop(event["hostname"], None)  # Celery's own state would keep it, as offline
        elif FLEET in event:
            self._workers_shown[event["hostname"]] = _shown(event[FLEET])


class _NoMetrics:
    """Counts nothing."""

    def observe_task(self, *_: object) -> None:
        """Not this one."""

    def observe_worker(self, *_: object) -> None:
        """Nor this."""


class FleetEvents(Events):  # type: ignore[misc]
    """The thread that listens, and the asking."""

    def __init__(self, capp: Any, io_loop: Any, broker: str, state: FleetState) -> None:  # noqa: ANN401 - untyped
        super().__init__(capp, io_loop, enable_events=False, max_tasks_in_memory=1)
        self.state, self._broker = state, broker
        self._token: str | None = None
        self._asking = PeriodicCallback(self._ask, ASK_EVERY_MS)

    def start(self) -> None:
        """Listen, and ask."""
        super().start()
        self._asking.start()

    def run(self) -> None:
        """Listen for ever; after each new connection the past is asked for."""
        while True:
            try:
                with self.capp.connection() as connection:
                    receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
                    self._token = secrets.token_hex(8)
                    receiver.capture(limit=None, timeout=None, wakeup=False)
            except Exception as error:  # noqa: BLE001 - the top of a loop; the broker's errors are of many kinds
                log.warning("Flower does not hear the broker: %s; tried again", error)
                threading.Event().wait(RECONNECT_S)

    def on_event(self, event: dict[str, Any]) -> None:
        """One event, in the receiver's thread."""
        if event["type"] != TOLD:
            super().on_event(event)
        elif self._token in event["asked"]:
            self._token = None

    async def _ask(self) -> None:
        if self._token is not None:
            await self.io_loop.run_in_executor(None, self._put, self._token)

    def _put(self, token: str) -> None:
        try:
            with sync_client(self._broker, answer_s=ANSWER_S) as client:
                pipeline = client.pipeline(transaction=False)
                pipeline.sadd(FLOWER_ASKS, token)
                pipeline.expire(FLOWER_ASKS, ASK_KEPT_S)
                pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("Flower cannot ask for the past: %s", error)


def _shown(fleet: dict[str, Any]) -> dict[str, Any]:
    """What Celery's own workers would say when they are inspected, of what a node is."""
    queue = {
        "exclusive": False,
        "durable": True,
        "no_ack": True,
        "alias": None,
        "queue_arguments": None,
        "binding_arguments": None,
        "auto_delete": False,
    }
    running = {f"{lane} running": text for lane, text in fleet["running"].items()}
    stats = {
        "pool": {"pool": fleet["pool"], "state": fleet["state"], "max-concurrency": fleet["slots"]} | running,
        "total": {},
        "broker": {},
        "capabilities": ", ".join(fleet["capabilities"]),
        "tools": fleet["tools"],
        "location": fleet["location"],
    }
    exchange = {"name": "", "type": "direct"}
    queues = [queue | {"name": name, "routing_key": name, "exchange": exchange} for name in fleet["queues"]]
    return _NOTHING | {"stats": stats, "active_queues": queues, "timestamp": time.time()}
