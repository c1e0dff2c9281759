"""The sides that are compared, each as a set of processes and one client.

A side is a context manager: everything of it is started on the way in and ended on the way out. The
fleet's sides are in benchmarks/fleet_side.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.processes import ROOT, Broker, Client, Crew, free_port, python, running, wait_for_port


@dataclass(frozen=True, slots=True)
class Running:
    """A side that is up."""

    crew: Crew
    client: Client


class Start(Protocol):
    """Starts a side."""

    def __call__(self, broker: Broker, logs: Path) -> AbstractContextManager[Running]:
        """Up while inside."""
        ...


@dataclass(frozen=True, slots=True)
class Side:
    """One row of the table.

    Attributes:
        name: shown.
        what: one line for the report: what the figures are of.
        start: brings it up.
        callers: of the closed loop; the same for all, for a pool of many connections has costs of its own.
        is_peer: needs the peers' environment.
    """

    name: str
    what: str
    start: Start
    callers: int = 16
    is_peer: bool = False


@contextmanager
def client_of(module: str, env: dict[str, str], logs: Path, *, peer: bool = False) -> Iterator[tuple[Client, Crew]]:
    """The client process, as a crew of its own part."""
    arguments = [python(peer=peer), "-m", f"benchmarks.{module}"]
    with running(arguments, env=env, log=logs / f"{module}.log", is_client=True) as process:
        yield Client(process), Crew({"client": [process]})


@contextmanager
def floor(broker: Broker, logs: Path) -> Iterator[Running]:
    """Redis push and pop, one worker."""
    env = {"BENCH_REDIS_URL": broker.url}
    with ExitStack() as stack:
        worker = stack.enter_context(
            running([python(), "-m", "benchmarks.floor_worker"], env=env, log=logs / "floor_worker.log")
        )
        client, crew = stack.enter_context(client_of("floor_client", env, logs))
        yield Running(Crew({**crew.parts, "worker": [worker]}, broker), client)


def celery(pool: str, concurrency: int) -> Start:
    """Bare Celery with Redis results, one worker process."""

    @contextmanager
    def start(broker: Broker, logs: Path) -> Iterator[Running]:
        env = {"BENCH_REDIS_URL": broker.url, "PYTHONPATH": str(ROOT)}
        arguments = [str(Path(sys.executable).parent / "celery"), "-A", "benchmarks.celery_app", "worker"]
        arguments += ["--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
        with ExitStack() as stack:
            worker = stack.enter_context(running(arguments, env=env, log=logs / f"celery_{pool}.log"))
            client, crew = stack.enter_context(client_of("celery_client", env, logs))
            yield Running(Crew({**crew.parts, "worker": [worker]}, broker), client)

    return start


@contextmanager
def docket(broker: Broker, logs: Path) -> Iterator[Running]:
    """FastMCP with Docket: front and worker share a process, as they do by default."""
    port = free_port()
    env = {"BENCH_REDIS_URL": broker.url, "BENCH_PORT": str(port), "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        server = stack.enter_context(
            running([python(peer=True), "-m", "benchmarks.docket_server"], env=env, log=logs / "docket_server.log")
        )
        wait_for_port(port, server)
        client, crew = stack.enter_context(client_of("docket_client", env, logs, peer=True))
        yield Running(Crew({**crew.parts, "front+worker": [server]}, broker), client)


PEERS = (
    Side("raw floor", "Redis LPUSH/BRPOP both ways, one worker; keeps and decides nothing", floor),
    Side("Celery solo", "delay().get(), Redis results, defaults, one solo worker", celery("solo", 1)),
    Side("Celery threads", "the same with a pool of 10 threads", celery("threads", 10)),
    Side("FastMCP + Docket", "call_tool as a background task, Streamable HTTP", docket, is_peer=True),
)
