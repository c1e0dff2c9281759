"""A ledger is lost and restored from a backup: nothing unsafe runs twice, nodes are there again, work goes on."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.testing.local import Said, mcpfleet

WITHIN_S = 120.0
POLL_S = 0.1
SUPERSEDED = 4
"""Exit status of a node that the ledger does not know."""
SERVER = Path(__file__).with_name("gated_server.py")


@dataclass
class Fleet:
    """Processes over one Redis and one database, each ended by its pid."""

    folder: Path
    redis_url: str
    database_url: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    join_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    port: int = 0
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """Of the orchestrator, and of `mcpfleet ledger`."""
        return {
            "PATH": os.environ["PATH"],
            "MCPFLEET_DATABASE_URL": self.database_url,
            "MCPFLEET_REDIS_URL": self.redis_url,
            "MCPFLEET_BLOB_DIR": str(self.folder / "blobs"),
            "MCPFLEET_TOKEN": self.token,
            "MCPFLEET_JOIN_TOKEN": self.join_token,
            "MCPFLEET_PORT": str(self.port),
            "MCPFLEET_READY_FILE": str(self.folder / "ready"),
            "MCPFLEET_GRACE_TOOLS_S": "1",
            "MCPFLEET_LEASE_TTL_S": "30",
        }

    def start(self, name: str, *command: str, **settings: str) -> None:
        """A process of ours with these settings."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *command], env=ours | settings, cwd=self.folder, stdout=log, stderr=log
            )

    def start_orchestrator(self) -> None:
        """The second time, on the same port."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self.start("orchestrator", "orchestrator.cli.main", "serve", **self.settings)
        self.until(ready.exists, "the orchestrator is ready")
        self.port = int(ready.read_text().strip().rsplit(":", 1)[1])

    def start_node(self, name: str) -> None:
        """Until it offers its tools."""
        self.start(
            name,
            "worker.cli",
            "run",
            "--name",
            name,
            MCPFLEET_NODE_ORCHESTRATOR_URL=f"http://127.0.0.1:{self.port}",
            MCPFLEET_NODE_JOIN_TOKEN=self.join_token,
            MCPFLEET_NODE_STATE_DIR=str(self.folder / name),
            MCPFLEET_NODE_SERVERS=str(self.folder / "servers.json"),
        )
        self.until(lambda: name in self.active(), f"{name} is active")

    def active(self) -> set[str]:
        """Nodes that work may be placed on, with the gated server's tools."""
        items = self.get("/v1/nodes")["items"]
        return {one["name"] for one in items if one["state"] == "active" and one["tools"] > 5}

    def kill(self, name: str) -> None:
        """-9."""
        self.running[name].kill()
        self.running.pop(name).wait()

    def call(self, tool: str, key: str, **more: Any) -> str:
        """Accepted; its id."""
        arguments = {"key": key} | ({"gate": more.pop("gate")} if "gate" in more else {})
        return str(self.ask("POST", "/v1/invocations", {"tool": f"gated.{tool}", "arguments": arguments, **more})["id"])

    def state(self, invocation_id: str) -> str:
        """As it stands."""
        return str(self.get(f"/v1/invocations/{invocation_id}").get("state"))

    def ends(self, invocation_id: str) -> str:
        """How it ended."""
        self.until(lambda: self.state(invocation_id) in {"succeeded", "failed", "lost"}, f"{invocation_id} ended")
        return self.state(invocation_id)

    def get(self, path: str) -> dict[str, Any]:
        """One answer."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One answer."""
        head = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = httpx.request(method, url, json=body, headers=head, timeout=90)
        return dict(answer.json()) if answer.content else {}

    def pause(self, *, is_paused: bool) -> None:
        """The project whose calls shall wait."""
        self.ask("POST", "/v1/pauses", {"kind": "project", "name": "later", "is_paused": is_paused})

    def ledger(self, *words: str) -> Said:
        """`mcpfleet ledger WORDS`, with the orchestrator's settings."""
        return mcpfleet(self.settings, "ledger", *words)

    def marks(self) -> Counter[str]:
        """How often each key's effect happened."""
        path = self.folder / "marks"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Bounded."""
        deadline = time.monotonic() + WITHIN_S
        while not is_so():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2500:] for path in sorted(self.folder.glob("*.log")))
                pytest.fail(f"not within {WITHIN_S:g} s: {what}\n{self.marks()}\n{logs}", pytrace=False)
            threading.Event().wait(POLL_S)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live("postgres"))])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Fleet]:
    """An orchestrator and a node; ended whatever happens."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    server = {"command": sys.executable, "args": [str(SERVER), str(tmp_path)]}
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": {"gated": server}}))
    made = Fleet(tmp_path, redis_url, url)
    try:
        made.start_orchestrator()
        made.start_node("a1")
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait()


def _lose(fleet: Fleet) -> None:
    """The database and the blobs, as after a disk's end. Redis and the nodes stay."""
    fleet.kill("orchestrator")
    for path in fleet.folder.glob("ledger.db*"):
        path.unlink()
    if fleet.database_url.startswith("postgresql"):
        from psycopg import connect

        with connect(fleet.database_url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("DROP SCHEMA public CASCADE")
            admin.execute("CREATE SCHEMA public")


def _before(fleet: Fleet) -> dict[str, str]:
    """One call ended, three under way, two that wait."""
    done = fleet.call("apply", "done")
    assert fleet.ends(done) == "succeeded"
    fleet.pause(is_paused=True)
    ids = {
        "done": done,
        "safe": fleet.call("put", "safe", gate="open"),
        "unsafe": fleet.call("apply", "unsafe", gate="open"),
        "endless": fleet.call("apply", "endless", gate="never"),
        "waits-safe": fleet.call("put", "waits-safe", project="later"),
        "waits-unsafe": fleet.call("apply", "waits-unsafe", project="later"),
    }
    for name in ("safe", "unsafe", "endless"):
        fleet.until(lambda one=ids[name]: fleet.state(one) == "running", f"{name} runs")  # type: ignore[misc]
    return ids


def _after(fleet: Fleet, ids: dict[str, str]) -> str:
    """All of them but one run and end; another is accepted, and another node joins. Its id."""
    (fleet.folder / "open").touch()
    fleet.pause(is_paused=False)
    for name in set(ids) - {"endless"}:
        assert fleet.ends(ids[name]) == "succeeded", name
    fleet.start_node("a2")
    unknown = fleet.call("apply", "unknown")
    assert fleet.ends(unknown) == "succeeded"
    return unknown


@pytest.mark.timeout(600)
def test_a_restored_ledger_runs_nothing_unsafe_twice(fleet: Fleet) -> None:
    """Backed up in the middle of calls, lost, restored: every effect that may not be repeated happened once."""
    ids, copy = _before(fleet), str(fleet.folder / "copy")
    said = fleet.ledger("backup", copy)
    assert said.returncode == 0, said.stderr
    unknown = _after(fleet, ids)
    refused = fleet.ledger("restore", copy)
    assert (refused.returncode, "an orchestrator runs" in refused.stderr) == (1, True), refused.stderr
    _lose(fleet)
    restored = fleet.ledger("restore", copy)
    assert restored.returncode == 0, restored.stderr
    fleet.start_orchestrator()
    fleet.until(lambda: "a1" in fleet.active(), "the node of the backup renewed by itself")
    assert fleet.running["a1"].poll() is None
    assert fleet.running.pop("a2").wait(WITHIN_S) == SUPERSEDED, "this ledger never heard of that node"
    fleet.start_node("a2")
    fleet.pause(is_paused=False)
    ends = {name: fleet.ends(one) for name, one in ids.items()}
    assert ends == {
        "done": "succeeded",
        "safe": "succeeded",
        "unsafe": "lost",
        "endless": "lost",
        "waits-safe": "succeeded",
        "waits-unsafe": "lost",
    }
    counted = fleet.marks()
    assert {counted[name] for name in ("done", "unsafe", "endless", "waits-unsafe", "unknown")} == {1}, counted
    assert fleet.get(f"/v1/invocations/{unknown}")["code"] == "not_found"
    letters = {one["id"]: one["reason"] for one in fleet.get("/v1/dead-letters")["items"]}
    assert letters == {ids[name]: "ledger_restored" for name in ("unsafe", "endless", "waits-unsafe")}
    fleet.until(lambda: _held(fleet) == 0, "nothing of the lost time holds a slot")
    assert fleet.ends(fleet.call("apply", "new")) == "succeeded"


def _held(fleet: Fleet) -> int:
    return sum(sum(one["outstanding"].values()) for one in fleet.get("/v1/nodes")["items"])
