"""A run of the real Claude Code asks, a person answers at the fleet's door, and just that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from anyio.from_thread import start_blocking_portal

from orchestrator.cli.main import run as run_cli
from orchestrator.testing.serving import serving
from tests.contract.claude_binary import BINARY, VERSION
from tests.contract.confined_rig import forget_groups
from tests.flow.test_restart import Processes
from worker.testing.messages_double import MessagesDouble, text, use

pytestmark = pytest.mark.live("claude")

COMMAND = "echo it-ran"
SCRIPT = [[use("Bash", command=COMMAND + " > proof; cat proof")], [text("Done.")]]


@dataclass
class Scene:
    """An orchestrator, a node with Claude Code, and the model behind it."""

    fleet: Processes
    model: MessagesDouble

    def begin(self) -> str:
        """A run that will ask; its id."""
        arguments = {"prompt": "do it", "permission_mode": "ask"}
        return str(self.fleet.post("/v1/invocations", {"tool": "claude_code.run", "arguments": arguments})["id"])

    def asked(self, invocation: str) -> dict[str, Any]:
        """The question, once it is there."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = self.fleet.get("/v1/approvals", state="waiting")["items"]
            return bool(found)

        self.fleet.until(is_there)
        assert found[0]["invocation"] == invocation
        return found[0]

    def answer(self, asked: dict[str, Any], answer: str, **other: str) -> httpx.Response:
        """As a client of the API does."""
        body = {"answer": answer, "arguments_sha256": asked["arguments_sha256"]} | other
        head = {"Authorization": f"Bearer {self.fleet.token}"}
        return httpx.post(f"{self.fleet.url}/v1/approvals/{asked['id']}", json=body, headers=head, timeout=60)

    def ended(self, invocation: str) -> dict[str, Any]:
        """The Invocation when it ended."""
        return self.fleet.get(f"/v1/invocations/{invocation}", wait=60)

    def tool_said(self) -> str:
        """What the model was told of its tool."""
        return " ".join(self.model.results())


@pytest.fixture
def scene(tmp_path: Path, redis_url: str) -> Iterator[Scene]:
    """Started, and ended whatever happens."""
    with _scene(tmp_path, redis_url) as begun:
        yield begun


@contextmanager
def _scene(folder: Path, redis_url: str, **approvals: object) -> Iterator[Scene]:
    model, fleet = MessagesDouble(SCRIPT), Processes(folder, redis_url)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving(model.app)) as url:
        (folder / "key").write_text("not-a-secret")
        entry = {
            "kind": "claude_code",
            "binary": str(BINARY),
            "version": VERSION,
            "key_file": str(folder / "key"),
            "url": url,
            "model": "claude-sonnet-5",
            "approvals": approvals,
        }
        servers = folder / "servers.json"
        servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": {"sidecars": {"claude_code": entry}}}))
        try:
            fleet.start_orchestrator()
            fleet.start_node(MCPFLEET_NODE_SERVERS=str(servers), MCPFLEET_NODE_SLOTS_AGENTS="1")
            fleet.until(lambda: any(each["name"] == "claude_code.run" for each in fleet.get("/v1/tools")["items"]))
            yield Scene(fleet, model)
        finally:
            for process in fleet.running.values():
                process.kill()
                process.wait()
            for home in folder.rglob("sidecars/claude_code"):
                forget_groups(home)


def test_what_is_allowed_runs_though_the_orchestrator_was_killed_in_between(scene: Scene) -> None:
    """Kill -9 after the question: the next one still shows it, takes the answer, and the run goes on."""
    run = scene.begin()
    before = scene.asked(run)
    scene.fleet.running["orchestrator"].kill()
    scene.fleet.running.pop("orchestrator").wait()
    scene.fleet.start_orchestrator()
    asked = scene.asked(run)
    assert (asked, asked["arguments"]["command"]) == (before, COMMAND + " > proof; cat proof")
    assert scene.fleet.get(f"/v1/invocations/{run}")["approvals"] == [asked["id"]]
    wrong = scene.answer(asked, "allow", arguments_sha256="0" * 64)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "other_arguments")
    assert scene.answer(asked, "allow").status_code == 200
    ended = scene.ended(run)
    assert (ended["state"], ended["fence"], ended["result"]["structuredContent"]["denials"]) == ("succeeded", 1, [])
    assert "it-ran" in scene.tool_said()
    scene.fleet.until(lambda: scene.fleet.get(f"/v1/approvals/{asked['id']}")["taken_at"] is not None)


def test_what_is_denied_does_not_run(scene: Scene) -> None:
    """By the command line; the agent hears why and goes on without it."""
    run = scene.begin()
    asked = scene.asked(run)
    environ = {"MCPFLEET_URL": scene.fleet.url, "MCPFLEET_TOKEN": scene.fleet.token}
    with open(os.devnull, "w", encoding="utf-8") as out, open(os.devnull, "rb") as stdin:  # noqa: PTH123 - a device
        status = run_cli(
            ["deny", asked["id"][-8:], "--reason", "not on a Friday"], environ=environ, out=out, err=out, stdin=stdin
        )
    assert status == 0
    ended = scene.ended(run)
    assert (ended["state"], ended["result"]["structuredContent"]["denials"]) == ("succeeded", ["Bash"])
    assert ("it-ran" in scene.tool_said(), "not on a Friday" in scene.tool_said()) == (False, True)


def test_a_run_that_is_cancelled_while_it_waits_leaves_nothing(scene: Scene) -> None:
    """No process, and no question that could still be answered."""
    run = scene.begin()
    asked = scene.asked(run)
    scene.fleet.post(f"/v1/invocations/{run}/cancel", {})
    assert scene.ended(run)["state"] == "cancelled"
    node = psutil.Process(scene.fleet.running["node"].pid)
    scene.fleet.until(lambda: not node.children(recursive=True))
    late = scene.answer(asked, "allow")
    assert (late.status_code, late.json()["code"]) == (410, "approval_over")
    assert "it-ran" not in scene.tool_said()


def test_a_question_that_nobody_answers_is_denied(tmp_path: Path, redis_url: str) -> None:
    """When its time is over; and the fleet says that it expired."""
    with _scene(tmp_path, redis_url, wait_s=1.0) as scene:
        run = scene.begin()
        ended = scene.ended(run)
        assert ended["result"]["structuredContent"]["denials"] == ["Bash"]
        assert "nobody answered within 1 s" in scene.tool_said()
        (asked,) = scene.fleet.get("/v1/approvals", state="expired")["items"]
        assert scene.answer(asked, "allow").status_code == 410


def test_a_freed_slot_is_anothers_while_a_person_thinks(tmp_path: Path, redis_url: str) -> None:
    """Two runs at a node with one slot both ask; both are answered, and both end."""
    with _scene(tmp_path, redis_url, mode="free") as scene:
        first, second = scene.begin(), scene.begin()
        both: list[dict[str, Any]] = []

        def are_there() -> bool:
            both[:] = scene.fleet.get("/v1/approvals", state="waiting")["items"]
            return len(both) == 2

        scene.fleet.until(are_there)
        assert {asked["invocation"] for asked in both} == {first, second}
        assert [scene.answer(asked, "allow").status_code for asked in both] == [200, 200]
        assert [scene.ended(run)["state"] for run in (first, second)] == ["succeeded", "succeeded"]
