"""The command line over a real fleet with real MCP servers that we did not write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli.demo.props import make_repository
from orchestrator.testing.local import Local, command, mcpfleet, until

ANSWERS_WITHIN_S = 60.0


@pytest.fixture
def local(fleet: Local, third_party: dict[str, str]) -> Local:
    """The fleet that all flow tests share."""
    return fleet


def _mcpfleet(fleet: Local, *words: str, status: int = 0) -> str:
    said = mcpfleet(fleet.environ, *words)
    assert said.returncode == status, said.stdout + said.stderr
    return said.stdout


def test_the_command_is_a_program_of_its_own(local: Local) -> None:
    """What the other tests here do within this process."""
    words = ("call", "probe.echo", "word=hello", "--json")
    said = subprocess.run(
        command(*words), env=local.environ, capture_output=True, text=True, check=False, timeout=ANSWERS_WITHIN_S
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["state"] == "succeeded"


def test_words_reach_a_real_server_typed(local: Local, tmp_path: Path) -> None:
    """`max_count=2` is an integer for mcp-server-git, which would refuse a string."""
    repository = tmp_path / "shop"
    assert make_repository(repository)
    log = _mcpfleet(local, "call", "git.git_log", f"repo_path={repository}", "max_count=2")
    assert "Sell two for the price of one" in log
    assert "Begin the shop" not in log


def test_wrong_words_are_refused_before_anything_runs(local: Local) -> None:
    """By the orchestrator, against the server's own schema."""
    _mcpfleet(local, "call", "git.git_log", "max_count=2", status=2)


def test_tool_that_fails_fails_the_command(local: Local) -> None:
    """A real server's `isError`."""
    assert "zone" in _mcpfleet(local, "call", "time.get_current_time", "timezone=Moon/Sea", status=1).lower()


def test_result_is_there_for_another_command(local: Local) -> None:
    """Submitted by one process, read by the next."""
    name = _mcpfleet(local, "call", "time.get_current_time", "timezone=Europe/Berlin", "--detach").strip()
    answer = json.loads(_mcpfleet(local, "result", name[-8:], "--wait", "30"))
    assert answer["timezone"] == "Europe/Berlin"
    [attempt] = json.loads(_mcpfleet(local, "why", name, "--json"))["attempts"]
    assert attempt["reasons"]


def test_running_call_is_cancelled_from_another_terminal(local: Local) -> None:
    """The node is told at once, not at the next renewal or the end of the call."""
    name = _mcpfleet(local, "call", "probe.sleep", "seconds=600", "--detach").strip()

    def state() -> str:
        return str(json.loads(_mcpfleet(local, "show", name, "--json"))["state"])

    until(lambda: state() == "running", ANSWERS_WITHIN_S, "it runs")
    _mcpfleet(local, "cancel", name)
    until(lambda: state() == "cancelled", ANSWERS_WITHIN_S, "it is cancelled")


def test_drained_node_gets_nothing_more(local: Local) -> None:
    """And what needs it waits, with the reason."""
    _mcpfleet(local, "node", "cordon", "builders-1")
    name = _mcpfleet(local, "call", "probe.echo", "a=1", "--require", "build", "--detach").strip()
    assert "builders-1" in _mcpfleet(local, "why", name)
    _mcpfleet(local, "node", "uncordon", "builders-1")
    assert json.loads(_mcpfleet(local, "result", name, "--wait", "30", "--json"))["node"] == "builders-1"


def test_paused_project_waits_until_resumed(local: Local) -> None:
    """Accepted and durable, only not released."""
    _mcpfleet(local, "pause", "project", "siesta")
    name = _mcpfleet(local, "call", "probe.echo", "a=1", "--project", "siesta", "--detach").strip()
    assert "paused" in _mcpfleet(local, "why", name)
    _mcpfleet(local, "resume", "project", "siesta")
    assert json.loads(_mcpfleet(local, "result", name, "--wait", "30", "--json"))["state"] == "succeeded"


def test_stdio_door_speaks_mcp(local: Local) -> None:
    """`mcpfleet mcp` is what an MCP client starts: a handshake, then the fleet's tools."""
    frames = (
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    )
    with subprocess.Popen(command("mcp"), env=local.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = {}
        for frame in frames:
            process.stdin.write(json.dumps(frame).encode() + b"\n")
            process.stdin.flush()
            while "id" in frame and frame["id"] not in answers:
                said = json.loads(process.stdout.readline())
                answers[said.get("id")] = said
        process.stdin.close()
        assert process.wait(ANSWERS_WITHIN_S) == 0
    assert "git_log" in json.dumps(answers[2]["result"])
