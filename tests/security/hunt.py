"""Looks for a value everywhere that it must not be, around one local fleet.

In each form in which bytes travel: as it is, in hex, in base64 at each of its three offsets.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from orchestrator.testing.local import Local, mcpfleet

ANSWER_S = 60.0
PATHS = ("/health", "/metrics", "/openapi.json", "/v1/nodes", "/v1/tools", "/v1/pools", "/v1/queues", "/v1/secrets",
         "/v1/invocations", "/v1/dead-letters", "/v1/costs", "/v1/approvals", "/v1/backlog")  # fmt: skip
COMMANDS = (("nodes",), ("tools",), ("ps",), ("secrets", "list"), ("doctor",), ("queues",), ("pools",))


def forms(value: str) -> tuple[bytes, ...]:
    """How it may look."""
    raw = value.encode()
    shifted = [base64.b64encode(b"\0" * pad + raw)[4 : -4 - pad] for pad in range(3)]
    return (raw, raw.hex().encode(), *shifted)


class Wiretap:
    """Every command that Redis is given, as its MONITOR tells it; events and results pass there too."""

    def __init__(self, url: str) -> None:
        self.heard = bytearray()
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), ANSWER_S)
        if parts.password:
            self._socket.sendall(b"AUTH " + parts.password.encode() + b"\r\n")
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(ANSWER_S)
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 16):
                self.heard += data


@contextlib.contextmanager
def wiretap(url: str) -> Iterator[Wiretap]:
    """Until the end of the block."""
    tap = Wiretap(url)
    try:
        yield tap
    finally:
        tap.close()


def places(local: Local, tap: Wiretap, *, may_have: frozenset[int]) -> Iterator[tuple[str, bytes]]:
    """Everything that is searched, by name.

    Args:
        local: the fleet.
        tap: on its Redis, since before the value was set.
        may_have: processes in whose environment the value may be.
    """
    yield "redis traffic", bytes(tap.heard)
    yield from _files(local.state_dir)
    yield "output of mcpfleet up", local.output.read_bytes()
    yield from _processes(may_have)
    yield from _answers(local)


def found(value: str, searched: Iterator[tuple[str, bytes]]) -> list[str]:
    """The places where it is."""
    wanted = forms(value)
    return [name for name, data in searched if any(form in data for form in wanted)]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                yield f"file {path.relative_to(folder)}", path.read_bytes()


def _processes(may_have: frozenset[int]) -> Iterator[tuple[str, bytes]]:
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            yield f"arguments of {process.pid}", Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if process.pid not in may_have:
                yield f"environment of {process.pid}", Path(f"/proc/{process.pid}/environ").read_bytes()


def _answers(local: Local) -> Iterator[tuple[str, bytes]]:
    headers = {"Authorization": f"Bearer {local.token}"}
    with httpx.Client(headers=headers, timeout=ANSWER_S) as http:
        for path in PATHS:
            yield f"GET {path}", http.get(local.url + path).content
        for node in _items(http.get(f"{local.url}/v1/nodes").json()):
            for path in ("/health", "/metrics"):
                yield f"GET {path} of {node['name']}", httpx.get(f"{node['url']}{path}", timeout=ANSWER_S).content
        if local.file.flower_url:
            yield "Flower", httpx.get(f"{local.file.flower_url}/api/tasks", timeout=ANSWER_S).content
            yield "Flower's page", httpx.get(f"{local.file.flower_url}/tasks", timeout=ANSWER_S).content
    for words in COMMANDS:
        said = mcpfleet(local.environ, *words)
        yield f"mcpfleet {' '.join(words)}", (said.stdout + said.stderr).encode()


def _items(form: Mapping[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    return form["items"]
