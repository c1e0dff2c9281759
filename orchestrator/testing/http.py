"""The HTTP door over a fake fleet: in process, or on a real loopback socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette

from orchestrator.api.app import create_app
from orchestrator.api.settings import ApiSettings
from orchestrator.audit.log import AuditLog
from orchestrator.identity.challenges import Challenges
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.enrolment import Enroller
from orchestrator.identity.keys import Keys
from orchestrator.oauth import OAuth
from orchestrator.testing.audit import memory_audit
from orchestrator.testing.blobs import MemoryBlobs
from orchestrator.testing.doors import (
    CLIENT_TOKEN,
    FakeNodes,
    FakeTokens,
    MemoryEnrolments,
    MemoryKeys,
    NoApprovals,
    NoPolicies,
)
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.money import MemoryMoney
from orchestrator.testing.objectives import objectives_of
from orchestrator.testing.scaling import scale_views
from orchestrator.testing.secrets import NoErasure, memory_secrets
from tasks.clock import SystemClock

BASE_URL = "http://127.0.0.1:8600"
STOPS_WITHIN_S = 10.0


def fake_app(
    fleet: FakeFleet,
    settings: ApiSettings | None = None,
    money: MemoryMoney | None = None,
    *,
    draining: int = 0,
    oauth: OAuth | None = None,
    audit: AuditLog | None = None,
) -> Starlette:
    """The application over fakes only; with OAuth's tokens, clients and routes where it is given."""
    nodes = FakeNodes()
    enroller = Enroller(store=MemoryEnrolments(), members=nodes, clock=SystemClock())
    keys = Keys(store=MemoryKeys(), clock=SystemClock())
    challenges = Challenges(keys=keys, clock=SystemClock(), names=("127.0.0.1",))
    jwts = [] if oauth is None else [oauth.at_api]
    verifier = Authenticators([keys, challenges, FakeTokens(enroller.principal), *jwts])
    return create_app(
        fleet,
        nodes,
        MemoryBlobs(),
        verifier,
        settings or ApiSettings(),
        enrolments=enroller,
        scaling=scale_views(draining=draining),
        money=money or MemoryMoney(),
        approvals=NoApprovals(),
        secrets=memory_secrets(),
        erasure=NoErasure(),
        keys=keys,
        challenges=challenges,
        policies=NoPolicies(),
        oauth=None if oauth is None else oauth.server,
        extra_routes=() if oauth is None else oauth.routes(),
        audit=audit or memory_audit(),
        objectives=objectives_of(SystemClock()),
    )


@asynccontextmanager
async def door(
    fleet: FakeFleet | None = None,
    token: str | None = CLIENT_TOKEN,
    settings: ApiSettings | None = None,
    money: MemoryMoney | None = None,
    audit: AuditLog | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without a socket."""
    fleet = fleet or FakeFleet()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(fake_app(fleet, settings, money, audit=audit), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers) as client:
        yield client
    await fleet.close()


@contextmanager
def served(settings: ApiSettings | None = None, *, draining: int = 0) -> Iterator[str]:
    """The URL of the application on a free loopback port, in a thread of its own, over a fresh fake fleet.

    `draining`: machines of it that are let go.
    """
    # asyncio switches Nagle's delay (40 ms an answer) off only where the protocol is named
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    started = threading.Event()
    server: list[uvicorn.Server] = []

    async def serve() -> None:
        fleet = FakeFleet()
        config = uvicorn.Config(
            fake_app(fleet, settings, draining=draining), log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        server.append(uvicorn.Server(config))
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server[0].serve(sockets=[listener])
        await fleet.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fake-fleet")
    thread.start()
    started.wait(STOPS_WITHIN_S)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server[0].should_exit = True
        thread.join(STOPS_WITHIN_S)
        listener.close()
