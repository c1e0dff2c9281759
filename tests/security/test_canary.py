"""A secret that a real server used in real calls is found nowhere: not in the ledger, Redis, a log, Flower, a list.

The hunt itself is tried on values that are leaked on purpose, one place at a time.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from orchestrator.testing.local import UP_WITHIN_S, Local, until, upped
from tests.security.hunt import Wiretap, found, places, wiretap
from worker.testing import signing_server

REF = "secret_ref:shop:signing"
FILE_REF = "${secret_file:shop:signing}"
SCRIPT = [sys.executable, "-S", signing_server.__file__]
SERVERS = {
    "mcpServers": {
        "env": {"command": SCRIPT[0], "args": SCRIPT[1:], "env": {"SIGNING_KEY": REF}},
        "file": {"command": SCRIPT[0], "args": [*SCRIPT[1:], FILE_REF]},
    }
}

NODES = 2
"""One of each pool."""


class Field:
    """A fleet with one node, whose two servers need the same secret."""

    def __init__(self, local: Local, tap: Wiretap) -> None:
        self.local, self.tap = local, tap
        self._http = httpx.Client(base_url=local.url, headers={"Authorization": f"Bearer {local.token}"}, timeout=60.0)

    def set(self, value: str) -> None:
        """A version of the secret, for any node."""
        body = {"value": value, "pools": ["*"]}
        self._http.put("/v1/secrets/shop/signing", json=body).raise_for_status()

    def call(self, tool: str, project: str | None = None, **arguments: str) -> dict[str, Any]:
        """One call, to its end."""
        body = {"tool": tool, "arguments": arguments, "project": project}
        view: dict[str, Any] = self._http.post("/v1/invocations?wait=20", json=body).json()
        return view

    def signs_with(self, server: str, key: str) -> bool:
        """Whether this server has this version."""
        view = self.call(f"{server}.sign", text="x")
        result = view.get("result") or {"content": [{"text": ""}]}
        return bool(result["content"][0]["text"] == signing_server.signature(key, "x"))

    def facts(self, server: str) -> dict[str, Any]:
        """What it tells of itself."""
        form: dict[str, Any] = json.loads(self.call(f"{server}.facts")["result"]["content"][0]["text"])
        return form

    def hunt(self, value: str) -> list[str]:
        """Where it is, but in the environment of the processes that need it there: one on each node."""
        need = frozenset(one.pid for one in self.local.family() if one.cmdline() == SCRIPT)
        assert len(need) == NODES
        return found(value, places(self.local, self.tap, may_have=need))


def in_ledger(names: list[str]) -> list[str]:
    """Those of the database's files."""
    return [name for name in names if name.startswith("file ledger.db")]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A real fleet, and an ear on its Redis."""
    folder = tmp_path_factory.mktemp("canary")
    servers = folder / "servers.json"
    servers.write_text(json.dumps(SERVERS))
    words = ("--nodes", "1", "--servers", str(servers), "--verbose")
    settings = {"LOG_LEVEL": "DEBUG", "NODE_LOG_LEVEL": "debug", "SEAL_PAYLOADS": "true"}
    told = {f"MCPFLEET_{name}": value for name, value in settings.items()}
    with upped(folder, *words, environ=os.environ, settings=told) as local, wiretap(local.file.redis_url) as tap:
        yield Field(local, tap)


def test_a_secret_that_was_used_and_rotated_is_found_nowhere(field: Field) -> None:
    """Set, given, signed with by two real servers, complained of on stderr, rotated, signed with again."""
    first, second = ("canary-" + secrets.token_urlsafe(24) for _ in range(2))
    for key in (first, second):
        field.set(key)
        for server in ("env", "file"):
            until(partial(field.signs_with, server, key), UP_WITHIN_S, f"{server} has its key")
            field.call(f"{server}.complain")
    for server in ("env", "file"):
        assert field.facts(server)["core"] in ([0, 0], [1, 1])
    assert len(field.tap.heard) > 1000, "the tap hears nothing"
    assert field.hunt(first) == []
    assert field.hunt(second) == []
    assert b"cannot sign with ***" in b"".join(path.read_bytes() for path in field.local.state_dir.rglob("*.log"))


def test_the_hunt_finds_what_is_leaked(field: Field) -> None:
    """Each kind of place once: without this the hunt could be blind."""
    leaked = "leaked-" + secrets.token_urlsafe(24)
    field.call("probe.echo", text=leaked)
    assert "redis traffic" in field.hunt(leaked)
    assert in_ledger(field.hunt(leaked)) == [], "payloads are sealed"
    project = "leaked-" + secrets.token_hex(16)
    field.call("probe.echo", project=project)
    assert in_ledger(field.hunt(project)) != []
    lies = "leaked-" + secrets.token_urlsafe(24)
    (field.local.state_dir / "nodes" / "left").write_text(lies.encode().hex())
    process = subprocess.Popen([sys.executable, "-c", "input()", lies], stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"X": lies})
    try:
        here = field.hunt(lies)
        assert {"file nodes/left", f"arguments of {process.pid}", f"environment of {other.pid}"} <= set(here)
    finally:
        for one in (process, other):
            one.communicate(b"\n", timeout=60)
    said = "leaked-" + secrets.token_urlsafe(24)
    field.local.output.open("a").write(said)
    assert "output of mcpfleet up" in field.hunt(said)
