"""A node as an operating-system process: Celery in the main thread, everything else on one loop thread.

Owns signals and exit codes. The first SIGTERM, SIGINT or SIGHUP drains, the second stops at once.
Celery's own handlers are replaced, because they know nothing of draining (and SIGHUP would start the
process anew).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import IntEnum

import structlog
import uvloop
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from tasks.errors import FleetError, NotAllowed
from tasks.otlp import Otlp
from tasks.otlp_metrics import OtlpCollector
from worker.bootstrap import Node, Servers, pool_queues
from worker.bridge import CelerySide, Inbox, preload
from worker.ear import Ear
from worker.exporter import routes
from worker.fleet_clock import FleetClock
from worker.membership import Superseded
from worker.namesake import Namesake
from worker.secrets import NodeSecrets
from worker.serve import HttpServer
from worker.settings import NodeSettings
from worker.systemd import Supervisor

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
POLL_S = 0.2
"""How often the main thread looks up from a wait, so that Python can run signal handlers."""
CELERY_END_S = 5.0
"""After the node has ended Celery has so long; it may hang in a connect to a broker that is gone."""
_log = structlog.get_logger()


class Exit(IntEnum):
    """Exit codes."""

    LEFT = 0
    """Drained, settled, left."""
    FAILED = 1
    BAD_START = 2
    """A setting, the journal, or the orchestrator refused."""
    LEFT_WORK = 3
    """Something stayed in the journal: start this node again."""
    SUPERSEDED = 4
    """Another process has its name, or the fleet forgot it. Start it again: it joins where nobody has the name."""
    SHUT_OUT = 5
    """It was superseded, and what it has to join with is not accepted any more: its enrolment is gone. Starting it
    again does not help."""


McpSide = tuple[Sequence[BaseRoute], AbstractAsyncContextManager[None]]
"""The node's own MCP server: routes, and what must be running while they answer."""


class NodeProcess:
    """Runs one node from start to exit code."""

    def __init__(
        self,
        settings: NodeSettings,
        servers: Servers,
        mcp: Callable[[], McpSide],
        clock: FleetClock,
        service: Supervisor | None = None,
        *,
        secrets: NodeSecrets | None = None,
        otlp: Otlp | None = None,
    ) -> None:
        self._settings = settings
        self._servers = servers
        self._mcp = mcp
        self._clock, self._secrets, self._otlp = clock, secrets, otlp
        self._service = service or Supervisor()
        self._namesake = Namesake(settings.state_dir, settings.name)
        self._joined = threading.Event()
        self._ended = threading.Event()
        self._celery: CelerySide | None = None
        self._celery_ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain = asyncio.Event()
        self._stop = asyncio.Event()
        self._signals = 0
        self._exit = Exit.FAILED

    def run(self) -> Exit:
        """Call in the main thread. Returns when the node has ended."""
        self._own_signals()
        thread = threading.Thread(target=self._run_loop, name="loop")
        thread.start()
        preload()
        while not self._joined.wait(POLL_S) and not self._ended.is_set():
            pass
        if self._celery is not None:
            self._celery.run()
            self._celery_ended.set()
            self._call(self._drain.set)
        while not self._ended.wait(POLL_S):
            pass
        thread.join()
        return self._exit

    def _own_signals(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        self._call(self._drain.set if self._signals == 1 else self._stop.set)
        _log.info("signal", name=signal.Signals(number).name)

    def _call(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                self._exit = runner.run(self._live())
        except FleetError as error:
            _log.error("node_cannot_start", code=error.code, detail=error.message)
            is_out = isinstance(error, NotAllowed) and self._namesake.is_feared
            self._exit = Exit.SHUT_OUT if is_out else Exit.BAD_START
        except Exception:  # noqa: BLE001 - the top of the thread
            _log.exception("node_failed")
        finally:
            self._ended.set()
            self._end_celery()

    def _end_celery(self) -> None:
        if self._celery is None:
            return
        self._celery.stop()
        if not self._celery_ended.wait(CELERY_END_S):
            # Celery may sit in a connect for as long as the kernel likes; all our state is on disk by now.
            if self._otlp is not None:
                self._otlp.close()
            os._exit(self._exit)

    async def _live(self) -> Exit:
        http = HttpServer(self._settings.http_host, self._settings.http_port)
        node = Node(self._settings, self._servers, clock=self._clock, secrets=self._secrets, spans=self._otlp)
        if self._otlp is not None:
            node.metrics.registry.register(OtlpCollector(self._otlp))
        node.url = self._settings.url or http.url
        node.open_journal()
        mcp_routes, mcp_life = self._mcp()
        app = Starlette(routes=[*routes(node.metrics, node.health), *mcp_routes])
        alive = asyncio.create_task(self._service.keep_alive())
        try:
            await self._servers.start()
            async with mcp_life:
                await http.start(app)
                return await self._serve(node)
        finally:
            await node.close()
            await http.stop()
            await self._servers.close()
            alive.cancel()

    async def _serve(self, node: Node) -> Exit:
        if not await self._unless_stopped(node.start()):
            return Exit.LEFT
        self._celery = self._make_celery(node)
        node.executor.gate = self._celery
        node.ear = Ear(self._celery.knock, self._clock)
        self._joined.set()
        self._service.ready(f"{self._settings.name} has joined, pool {self._settings.pool}")
        try:
            if await self._first(node.wait(), self._drain.wait(), node.drain_wanted.wait()) == 0:
                return Exit.FAILED
        except Superseded as error:
            _log.error("superseded", detail=error.message)
            self._namesake.met()
            return Exit.SUPERSEDED
        self._drain.set()
        return await self._leave(node, self._celery)

    async def _leave(self, node: Node, celery: CelerySide) -> Exit:
        self._service.stopping("draining")
        leaving = asyncio.ensure_future(node.drain(celery.stop))
        which = await self._first(asyncio.shield(leaving), self._stop.wait())
        if which == 1:
            leaving.cancel()
            _log.warning("stopped_at_once", effect="what ran is reported as interrupted at the next start")
            return Exit.LEFT_WORK
        return Exit.LEFT if leaving.result() else Exit.LEFT_WORK

    async def _unless_stopped(self, start: Awaitable[object]) -> bool:
        """False when a signal came before it was done."""
        return await self._first(start, self._drain.wait()) == 0

    async def _first(self, *several: Awaitable[object]) -> int:
        """Which ended first; its error is raised, the others are cancelled."""
        futures = [asyncio.ensure_future(one) for one in several]
        try:
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in futures:
                if not future.done():
                    future.cancel()
        index = next(number for number, future in enumerate(futures) if future.done() and not future.cancelled())
        futures[index].result()
        return index

    def _make_celery(self, node: Node) -> CelerySide:
        inbox = Inbox(asyncio.get_running_loop(), node.deliver, node.executor.refuse)
        return CelerySide(
            name=self._settings.name,
            redis_url=node.redis_url,
            queues=node.reply.queues,
            pool_queues=pool_queues(self._settings),
            put=inbox.put,
            own_signals=self._own_signals,
            refuse=inbox.refuse,
        )
