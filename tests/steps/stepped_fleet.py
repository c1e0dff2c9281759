"""One orchestrator and one node that die where they are told to, over the tests' Redis, with their tools' own marks.

Owns processes, files and questions over HTTP; refuses to know what should come of a death.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

DYING = Path(__file__).with_name("dying.py")
EFFECTS_SERVER = Path(__file__).parent.parent / "chaos" / "effects_server.py"
NODE = "n1"
SLOTS = 2
WITHIN_S = 60.0
ASK_EVERY_S = 0.03
STOPS_WITHIN_S = 20.0
LEASE_TTL_S = 60
"""No lease lapses here, however busy the machine: each process is back before."""
TERMINAL = {"succeeded", "failed", "cancelled", "expired", "lost"}


@dataclass
class SteppedFleet:
    """Started once for the whole table; whoever dies is back within a second."""

    folder: Path
    redis_url: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    join_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    def __post_init__(self) -> None:
        self.marks = self.folder / "marks.jsonl"
        self.marks.touch()
        self._door = socket.create_server(("127.0.0.1", 0), backlog=256)
        """Ours, so that the port stays while the orchestrator is dead."""
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self.keepers: list[subprocess.Popen[bytes]] = []
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=WITHIN_S, trust_env=False
        )

    # ------------------------------------------------------------------------------ life

    @contextmanager
    def running(self) -> Iterator[SteppedFleet]:
        """Both processes, until the node offers its tools."""
        try:
            self._keep("orchestrator", "serve", **self._orchestrator())
            self._keep("node", "run", "--name", NODE, "--slots-tools", str(SLOTS), **self._node())
            self.whole()
            yield self
        finally:
            for keeper in reversed(self.keepers):
                _end(keeper)
            self._http.close()
            self._door.close()

    def whole(self) -> None:
        """Until the node is an active member with its tools, and nothing of an earlier call is left on it."""
        self.until(self._is_whole, "the node is active, empty, and offers its tools")

    def _is_whole(self) -> bool:
        nodes, tools = self.get("/v1/nodes")["items"], self.get("/v1/tools")["items"]
        if [node["state"] for node in nodes] != ["active"] or "effects.apply" not in {tool["name"] for tool in tools}:
            return False
        try:
            health = self._http.get(f"{nodes[0]['url']}/health").json()
        except httpx.TransportError:
            return False
        held = [health.get("unsettled"), *health.get("running", {}).values(), *health.get("waiting", {}).values()]
        return bool(health["ok"]) and not any(held)

    def leave(self) -> None:
        """SIGTERM for the node: it settles, leaves, and stays away."""
        _end(self.keepers.pop())

    def journal_rows(self) -> int:
        """What the node would still remember, once it has left."""
        with closing(sqlite3.connect(self.folder / "state" / f"{NODE}.db")) as journal:
            return int(journal.execute("SELECT count(*) FROM entry").fetchone()[0])

    # ------------------------------------------------------------------------------ dying

    def arm(self, step: str, calls: int = 1, whose: str = "") -> None:
        """Whoever arrives there as the last of so many dies; calls whose ids do not begin so are not counted."""
        partial = self.folder / "arming"
        partial.write_text(f"{calls} {whose}")
        partial.rename(self.folder / f"{step}.armed")

    def reached(self, step: str) -> bool:
        """It was armed, and somebody died there."""
        return (self.folder / f"{step}.reached").exists()

    def until_reached(self, step: str) -> None:
        """Until somebody died there."""
        self.until(lambda: self.reached(step), f"somebody dies at {step}")

    # ------------------------------------------------------------------------------ asking

    def accept(self, calls: list[dict[str, Any]]) -> list[str]:
        """Ask until it is answered, with the same idempotency keys; the ids."""
        return [one["id"] for one in self.post("/v1/invocations:batch", {"calls": calls})["items"]]

    def ended(self, invocation: str) -> dict[str, Any]:
        """As its caller sees it in the end."""
        deadline = time.monotonic() + WITHIN_S
        while (view := self.get(f"/v1/invocations/{invocation}", wait=5))["state"] not in TERMINAL:
            if time.monotonic() > deadline:
                pytest.fail(f"still {view['state']}: {view['attempts']}\n{self.logs()}", pytrace=False)
        return view

    def effects(self) -> Counter[str]:
        """Key → how often its effect happened, by the tools' own marks."""
        marks = [json.loads(line) for line in self.marks.read_text().splitlines()]
        return Counter(mark["key"] for mark in marks if mark["what"] == "effect")

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """One answer, asked for until it comes."""
        return self._asked("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One answer, asked for until it comes."""
        return self._asked("POST", path, json=body)

    def post_once(self, path: str, body: dict[str, Any] | None = None) -> None:
        """Ask, and do not ask again where the answer is lost."""
        try:
            self._http.post(path, json=body)
        except httpx.TransportError:
            return

    def _asked(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                answer = self._http.request(method, path, **how)
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if answer.is_success:
                    return dict(answer.json())
                said = answer.text
                assert answer.is_server_error, said
            if time.monotonic() > deadline:
                pytest.fail(f"{method} {path}: no answer but {said}\n{self.logs()}", pytrace=False)
            time.sleep(ASK_EVERY_S)

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Poll, bounded."""
        deadline = time.monotonic() + WITHIN_S
        while not is_so():
            if time.monotonic() > deadline or any(keeper.poll() is not None for keeper in self.keepers):
                pytest.fail(f"waited in vain until {what}\n{self.logs()}", pytrace=False)
            time.sleep(ASK_EVERY_S)

    def logs(self) -> str:
        """The end of what every process said."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in sorted(self.folder.glob("*.log")))

    # ------------------------------------------------------------------------------ what each is started with

    def _keep(self, side: str, *words: str, **settings: str) -> None:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}
        with (self.folder / f"{side}.log").open("ab") as log:
            self.keepers.append(
                subprocess.Popen(
                    [sys.executable, "-P", str(DYING), str(self.folder), side, *words],
                    env=ours | settings,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(self._door.fileno(),),
                )
            )

    def _orchestrator(self) -> dict[str, str]:
        return {
            "MCPFLEET_DATABASE_URL": f"sqlite:///{self.folder / 'ledger.db'}",
            "MCPFLEET_REDIS_URL": self.redis_url,
            "MCPFLEET_BLOB_DIR": str(self.folder / "blobs"),
            "MCPFLEET_TOKEN": self.token,
            "MCPFLEET_JOIN_TOKEN": self.join_token,
            "MCPFLEET_LISTEN_FD": str(self._door.fileno()),
            "MCPFLEET_LEASE_TTL_S": str(LEASE_TTL_S),
            "MCPFLEET_RENEW_EVERY_S": "0.3",
            "MCPFLEET_LEADER_TTL_S": "1.1",
            "MCPFLEET_RETRY_FIRST_WAIT_S": "0.05",
            "MCPFLEET_FLOWER_FEED": "false",
        }

    def _node(self) -> dict[str, str]:
        server = {"command": sys.executable, "args": ["-S", str(EFFECTS_SERVER), str(self.marks)]}
        servers = self.folder / "servers.json"
        servers.write_text(json.dumps({"mcpServers": {"effects": server}}))
        return {
            "MCPFLEET_NODE_SERVERS": str(servers),
            "MCPFLEET_NODE_ORCHESTRATOR_URL": self.url,
            "MCPFLEET_NODE_JOIN_TOKEN": self.join_token,
            "MCPFLEET_NODE_STATE_DIR": str(self.folder / "state"),
        }


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """By SIGTERM; what does not end, with all that it started, by SIGKILL."""
    keeper.terminate()
    try:
        keeper.wait(STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait(STOPS_WITHIN_S)
