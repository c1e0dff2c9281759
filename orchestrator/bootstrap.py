"""Runs the orchestrator: settings in, doors open, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from concurrent.futures import Future
from types import FrameType
from typing import Any

import structlog
import uvicorn
import uvloop

from orchestrator.doors import Doors
from orchestrator.introduction import Introductions, PassedOn
from orchestrator.limits import scheme_of, seal_secret
from orchestrator.patience import PatientProtocol
from orchestrator.relay import Relay
from orchestrator.settings import OrchestratorSettings
from orchestrator.telemetry import begin_telemetry
from orchestrator.tls import CertifiedHttp, keep_current
from orchestrator.tls_doors import context_for, names_of
from orchestrator.whole import Orchestrator, build
from tasks.otlp import Otlp

log = structlog.get_logger("mcpfleet.bootstrap")
LEAVES_WITHIN_S = 5
"""Open requests may take so long after SIGTERM."""
ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
SWITCH_INTERVAL_S = 0.0005
"""Of the interpreter's threads: the default 5 ms would hold up a commit behind a busy event loop."""
YOUNG_MAX = 10_000
"""Objects that are made before the garbage collector looks: with its 700, what lives as long as a call does, and is
no garbage, is looked through several times while the event loop waits. Of cycles as many may wait, a MB or two."""


def run(settings: OrchestratorSettings) -> None:
    """`serve` on uvloop: a third less CPU per call than the standard loop."""
    uvloop.run(serve(settings))


async def serve(settings: OrchestratorSettings) -> None:
    """Run until SIGTERM or SIGINT.

    While another replica leads, connections go to that one. The ready file, if asked for, is written
    once calls are answered here, by whichever.
    """
    otlp = begin_telemetry(settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(YOUNG_MAX)
    listening = _listen(settings)
    relay = Relay(Introductions(seal_secret(settings)), patience_s=2 * settings.leader_ttl_s)
    address = _address(settings, listening)
    orchestrator = await build(settings, address=address, follows=relay.led_by, environ=os.environ, spans=otlp)
    beside: set[asyncio.Task[None]] = set()
    config = uvicorn.Config(
        orchestrator.app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=LEAVES_WITHIN_S,
        lifespan="on",
        **_tls(settings, orchestrator, beside),
    )
    server = _Announcing(config, settings, listening, relay, orchestrator, otlp=otlp)
    ending = asyncio.create_task(_end_with_leadership(orchestrator, server))
    await server.serve(sockets=[listening])
    for task in (ending, *beside):
        task.cancel()
    if otlp is not None:
        await asyncio.to_thread(otlp.close)


def _tls(settings: OrchestratorSettings, orchestrator: Orchestrator, beside: set[asyncio.Task[None]]) -> dict[str, Any]:
    """What uvicorn is told. A certificate of our own is kept current by a task `beside`."""
    if orchestrator.authority is None:
        return {"http": PatientProtocol}
    context = context_for(settings, orchestrator.authority)
    if settings.tls_cert is None:
        beside.add(asyncio.create_task(keep_current(context, orchestrator.authority, names_of(settings))))
    return {"http": CertifiedHttp, "ssl_context_factory": lambda *_: context}


async def _end_with_leadership(orchestrator: Orchestrator, server: uvicorn.Server) -> None:
    """Another replica leads: this one's memory is stale. It ends, and its supervisor starts a standby."""
    await orchestrator.leadership.is_over.wait()
    orchestrator.leave()
    server.should_exit = True


class _Announcing(uvicorn.Server):
    """Writes the ready file when calls are answered; lets calls run on at the end."""

    def __init__(
        self,
        config: uvicorn.Config,
        settings: OrchestratorSettings,
        listening: socket.socket,
        relay: Relay,
        orchestrator: Orchestrator,
        *,
        otlp: Otlp | None,
    ) -> None:
        super().__init__(config)
        self._settings, self._listening, self._otlp = settings, listening, otlp
        self._relay, self._orchestrator = relay, orchestrator
        self._doors: Doors | None = None
        self._loop = asyncio.get_running_loop()
        self._leaving: Future[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        if self.started:
            self._loop.call_soon_threadsafe(self._orchestrator.leave)
            super().handle_exit(sig, frame)
        elif self._leaving is None:
            self._leaving = asyncio.run_coroutine_threadsafe(self._leave(), self._loop)

    async def _leave(self) -> None:
        """A standby waits to lead: it holds nothing but connections of others."""
        self._orchestrator.leadership.step_down()
        self._relay.close_door()
        await self._relay.drained(LEAVES_WITHIN_S)
        if self._otlp is not None:
            await asyncio.to_thread(self._otlp.close)
        os._exit(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's own
        """What uvicorn does once this process leads; until then connections go where the leader is."""
        await self._relay.open(self._listening)
        standing_by = asyncio.create_task(self._stand_by())
        await super().startup(sockets=[])  # it listens to none: what replicas say comes before TLS and HTTP
        self._doors = Doors(self._listening, self._protocol, self._relay.introductions, tls=self.config.ssl)
        self._doors.open()
        standing_by.cancel()
        self._relay.close_door()
        self._relay.led_by(_dialable(self._listening))
        gc.freeze()  # all that was loaded is never garbage: a full collection took 0.2 s with it
        self._announce("leader")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more; what was accepted ends as uvicorn says."""
        if self._doors is not None:
            self._doors.close()
        await super().shutdown(sockets=sockets)

    def _protocol(self, passed_on: PassedOn | None) -> PatientProtocol:
        """As uvicorn makes one, of a connection that came through a replica or did not."""
        made = CertifiedHttp if self.config.ssl else PatientProtocol
        protocol = made(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        protocol.passed_on = passed_on
        return protocol

    async def _stand_by(self) -> None:
        await self._relay.reaches_leader()
        self._announce("standby")

    def _announce(self, role: str) -> None:
        host, port = self._listening.getsockname()[:2]
        url = f"{scheme_of(self._settings)}://{host}:{port}"
        log.info("doors_open", url=url, role=role)
        ready = self._settings.ready_file
        if ready is not None:
            partial = ready.with_suffix(".partial")
            partial.write_text(f"{url}\n")
            partial.replace(ready)


def _address(settings: OrchestratorSettings, listening: socket.socket) -> str:
    """Where other replicas find this one."""
    if settings.advertise:
        return settings.advertise
    host, port = listening.getsockname()[:2]
    return f"{socket.gethostname() if host in ANY_HOST else host}:{port}"


def _dialable(listening: socket.socket) -> str:
    """Where this process itself finds its doors."""
    host, port = listening.getsockname()[:2]
    return f"{'127.0.0.1' if host in ANY_HOST else host}:{port}"


def _listen(settings: OrchestratorSettings) -> socket.socket:
    if settings.listen_fd is not None:
        return socket.socket(fileno=settings.listen_fd)
    return socket.create_server((settings.host, settings.port), backlog=2048)
