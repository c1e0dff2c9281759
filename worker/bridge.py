"""The one place where Celery's thread and the event loop's thread meet.

Celery runs in the main thread with a pool of one, because its body only hands over. Towards the loop:
an append and at most one wake-up per burst. Towards Celery: callbacks on its hub, which kombu makes
safe to call from another thread but runs in any order (they are a set there), so their order is kept
here. Nothing else in the worker may know of threads.

When it stops, kombu puts prefetched messages back on their queue. That is harmless: they name this
incarnation and its term, so nobody else can open them, and a new process has a new key.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery, bootsteps, signals
from celery.exceptions import SecurityWarning, WorkerShutdown, WorkerTerminate
from celery.worker import state as celery_state

from tasks.app import make_app
from tasks.invocation import Lane
from tasks.invoke import register
from tasks.queues import TASK_NAME
from tasks.sealing import Opener, labelled

PRELOADED = ("celery.bin.celery", "celery.apps.worker", "celery.worker.consumer", "kombu.transport.redis")
GATHER_S = 0.001
"""Commits of one delivery cost five times what they cost shared by eight."""
BRPOP_S = 0.2
"""With a pool queue: a paused or resumed queue takes effect when the outstanding BRPOP ends."""
_log = structlog.get_logger()


class Inbox:
    """Deliveries on their way into the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[str, str], None],
        refuse: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._deliver, self._refuse = deliver, refuse
        self._messages: deque[tuple[str, str]] = deque()
        self._is_scheduled = False
        self._drained_at_s = 0.0

    def put(self, body: str, mac: str) -> None:
        """From any thread. The append comes before the look at the flag, so no message is left behind."""
        self._messages.append((body, mac))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._wake)

    def refuse(self, why: str) -> None:
        """From any thread: a message that holds no delivery."""
        self._loop.call_soon_threadsafe(self._refuse, why)

    def _wake(self) -> None:
        """At once under a light load; a heavy one gathers, so that a turn of the loop has several to journal."""
        if self._loop.time() - self._drained_at_s < GATHER_S:
            self._loop.call_later(GATHER_S, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self._drained_at_s = self._loop.time()
        self._is_scheduled = False
        while self._messages:
            self._deliver(*self._messages.popleft())


class CelerySide:
    """Celery's worker in the main thread, and what the loop may ask of it. Is the executor's PoolGate."""

    def __init__(
        self,
        *,
        name: str,
        redis_url: str,
        queues: tuple[str, ...],
        pool_queues: dict[Lane, str],
        put: Callable[[str, str], None],
        own_signals: Callable[[], None],
        refuse: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._name = name
        self._refuse = refuse
        self._pool_queues = {lane: queue for lane, queue in pool_queues.items() if queue in queues}
        self._paused: set[Lane] = set()
        self._asked: deque[Callable[[], object]] = deque()
        self._worker: Any = None
        self._is_stopping = False
        celery_state.should_stop = None  # Celery keeps it in a module; an earlier worker may have left it set
        self._app = self._make(redis_url, queues, put, own_signals)

    def run(self) -> None:
        """Consume until `stop`, in the main thread. A broker that is away is waited for."""
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-Ofair", "-P", "solo"]
        try:
            self._app.worker_main(["-q", "worker", *options, "-n", f"{self._name}@%h", "-l", "WARNING"])
        except (WorkerShutdown, WorkerTerminate, SystemExit) as end:
            _log.debug("celery_ended", how=type(end).__name__)
        if not self._is_stopping:
            _log.error("celery_ended_unasked", effect="this node drains")

    def stop(self) -> None:
        """From any thread: take nothing more."""
        self._is_stopping = True
        celery_state.should_stop = os.EX_OK
        self._on_hub(lambda: None)  # wakes it up to see the flag

    def pause(self, lane: Lane) -> None:
        """No slot is free: take nothing more from the pool's queue."""
        queue = self._pool_queues.get(lane)
        if queue is not None and lane not in self._paused:
            self._paused.add(lane)
            self._on_hub(lambda: self._worker.consumer.cancel_task_queue(queue))

    def resume(self, lane: Lane) -> None:
        """A slot is free."""
        if lane in self._paused and not self._is_stopping:
            self._paused.discard(lane)
            queue = self._pool_queues[lane]
            self._on_hub(lambda: self._worker.consumer.add_task_queue(queue))

    def put_back(self, body: str, mac: str, lane: Lane) -> None:
        """For another node; lost if the broker is away, and then the ledger releases it again."""
        queue = self._pool_queues[lane]
        self._on_hub(lambda: self._app.send_task(TASK_NAME, (body, mac), queue=queue, retry=False))

    def knock(self, answer: Callable[[], None]) -> None:
        """Have `answer` called in Celery's thread, if that moves."""
        self._on_hub(answer)

    def _on_hub(self, callback: Callable[[], object]) -> None:
        worker = self._worker
        if worker is not None and worker.hub is not None:
            self._asked.append(callback)
            worker.hub.call_soon(self._do_all)

    def _do_all(self) -> None:
        """All that was asked and is not done, in order: a resume that overtakes its pause would leave a lane deaf.

        All, because the hub forgets callbacks when another one of the same turn fails. An error must not end
        Celery's loop; a broker that is away is the usual one.
        """
        while self._asked:
            try:
                self._asked.popleft()()
            except Exception:  # noqa: BLE001 - the top of a callback on the hub
                _log.warning("celery_callback_failed", exc_info=True)

    def _make(
        self,
        redis_url: str,
        queues: tuple[str, ...],
        put: Callable[[str, str], None],
        own_signals: Callable[[], None],
    ) -> Celery:
        app = make_app(redis_url, queues=queues)
        if self._pool_queues:
            app.conf.broker_transport_options = {**app.conf.broker_transport_options, "polling_interval": BRPOP_S}
        register(app, put)
        for name, task in app.tasks.items():  # Celery brings tasks of its own, and would run them
            task.Strategy = _hand_over(put, self._refuse) if name == TASK_NAME else _turn_away(self._refuse)
        side = self

        class Ready(bootsteps.StartStopStep):  # type: ignore[misc]  # celery is untyped
            """Started after Celery installed its signal handlers, before it connects."""

            def start(self, worker: Any) -> None:  # noqa: ANN401 - celery is untyped
                """The worker is there to be stopped; signals are ours from here on."""
                side._worker = worker
                _count_strangers(worker.consumer, side._refuse)
                own_signals()

        app.steps["worker"].add(Ready)
        # Celery would otherwise put its own handlers on the root logger.
        signals.setup_logging.connect(_keep_logging, weak=False)
        return app


def preload() -> None:
    """Import what Celery's worker needs, while the node still joins: it takes a second."""
    # It warns that root runs a worker, because of pickle; ours accepts JSON only (tasks/app.py).
    warnings.filterwarnings("ignore", category=SecurityWarning)
    for module in PRELOADED:
        importlib.import_module(module)


def _count_strangers(consumer: Any, refuse: Callable[[str], None]) -> None:  # noqa: ANN401 - celery is untyped
    """Messages that name another task, or hold none: Celery would write their bodies into the log."""
    consumer.on_unknown_task = lambda *_: refuse("task")
    for name in ("on_unknown_message", "on_invalid_task", "on_decode_error"):
        setattr(consumer, name, lambda *_: refuse("form"))


def _hand_over(put: Callable[[str, str], None], refuse: Callable[[str], None]) -> Callable[..., Callable[..., None]]:
    """A Celery task strategy that hands the message over where the default one would build a request.

    Its parts that we do not use (request, tracer, events, revocation, rate limits, ETA) cost more than
    half of what Celery costs per message. The message needs no acknowledgement: see tasks/app.py.
    """

    def strategy(_task: object, _app: object, _consumer: object) -> Callable[..., None]:
        def handle(message: Any, _body: object, _ack: object, _reject: object, _callbacks: object) -> None:  # noqa: ANN401
            try:
                (body, mac), _kwargs, _embed = message.decode()
            except (ValueError, TypeError) as error:
                _log.warning("message_unreadable", detail=str(error)[:200])
                refuse("form")
                return
            if not (isinstance(body, str) and isinstance(mac, str)):
                refuse("form")
            elif Opener.is_sealed(mac) and not labelled(body, message.headers.get("id")):
                refuse("label")  # somebody who cannot read it gave it the id of another
            else:
                put(body, mac)

        return handle

    return strategy


def _turn_away(refuse: Callable[[str], None]) -> Callable[..., Callable[..., None]]:
    """The strategy of tasks that are not ours."""
    return lambda *_args, **_more: lambda *_message: refuse("task")


def _keep_logging(**_: object) -> None:
    """Connected, so that Celery leaves logging alone."""
