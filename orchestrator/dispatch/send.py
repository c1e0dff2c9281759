# mypy: disable-error-code="no-untyped-call,attr-defined"
# kombu ships types for a part of itself only.
"""Puts deliveries on Celery queues, in batches, from one publisher thread.

kombu is synchronous; this thread is where it may block. A batch that failed is sent again whole: a
node refuses what it has seen. Refuses to choose queues: `route` did.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

import orjson
import structlog
from celery import Celery
from kombu import Producer
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tasks.queues import TASK_NAME

log = structlog.get_logger("mcpfleet.send")
BATCH_MAX_MSGS = 500
RETRY_FIRST_S, RETRY_CAP_S = 0.1, 2.0
ORIGIN = "mcpfleet"


@dataclass(frozen=True, slots=True)
class Letter:
    """One Celery message: where to, and the delivery. `tool` and `project` are readable: None where that is sealed."""

    invocation_id: str
    queue: str
    tool: str | None
    project: str | None
    body: str
    mac: str


class Sender:
    """One thread, one connection, one producer."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._letters: queue.SimpleQueue[Letter | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mcpfleet-send", daemon=True)
        self._stopping = threading.Event()
        self._down_because: str | None = None

    @property
    def down_because(self) -> str | None:
        """Why nothing can be published at the moment; None while the broker answers."""
        return self._down_because

    def start(self) -> None:
        """Start the publisher thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Publish what is queued, as far as the broker lets us, and end the thread."""
        self._stopping.set()
        self._letters.put(None)
        self._thread.join(timeout_s)

    def send(self, letter: Letter) -> None:
        """Hand over one message; returns at once. The number in flight is bounded by credit."""
        self._letters.put(letter)

    def _run(self) -> None:
        """A new connection after every failure; what was not published is kept and sent first."""
        pending: list[Letter] = []
        wait_s = RETRY_FIRST_S
        while True:
            try:
                with self._app.connection_for_write() as connection:
                    producer = Producer(connection, auto_declare=False)
                    while pending := pending or self._next_batch():
                        self._publish(producer, pending)
                        self._note(None)
                        pending, wait_s = [], RETRY_FIRST_S
            except Exception as error:
                if not isinstance(error, KombuError | RedisError | OSError):
                    log.exception("publish_failed")
                if pending:  # else nothing would be sent that could find the broker back
                    self._note(str(error.__cause__ or error) or type(error).__name__)
            else:
                return
            if self._stopping.wait(wait_s):
                return
            wait_s = min(RETRY_CAP_S, wait_s * 2)

    def _next_batch(self) -> list[Letter]:
        first = self._letters.get()
        if first is None:
            return []
        batch = [first]
        while len(batch) < BATCH_MAX_MSGS:
            try:
                letter = self._letters.get_nowait()
            except queue.Empty:
                break
            if letter is None:
                self._letters.put(None)
                break
            batch.append(letter)
        return batch

    def _publish(self, producer: Producer, batch: list[Letter]) -> None:
        with producer.batch(BATCH_MAX_MSGS):
            for letter in batch:
                headers, properties, body, _ = self._message(letter)
                producer.publish(
                    orjson.dumps(body),
                    exchange="",
                    routing_key=letter.queue,
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers=headers,
                    **properties,
                )

    def _message(self, letter: Letter) -> tuple[dict[str, object], dict[str, object], object, object]:
        """A Celery protocol 2 message. What Flower could show of it holds no arguments."""
        message: tuple[dict[str, object], dict[str, object], object, object] = self._app.amqp.as_task_v2(
            letter.invocation_id,
            TASK_NAME,
            args=(letter.body, letter.mac),
            shadow=letter.tool,
            argsrepr="(sealed)",
            kwargsrepr="(sealed)" if letter.tool is None else f"{{'project': {letter.project!r}}}",
            origin=ORIGIN,
            ignore_result=True,
        )
        return message

    def _note(self, down_because: str | None) -> None:
        if down_because and not self._down_because:
            log.warning("broker_unavailable", error=down_because)
        elif self._down_because and not down_because:
            log.info("broker_is_back")
        self._down_because = down_because
