"""Agents reach what their project lists: whatever kind they are of, through the node as it is, to the answer."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.contract import agents
from tests.contract.acp_rig import KEY, do, scripted
from tests.contract.chat_rig import sidecar, task_in
from tests.contract.reach_rig import NAME, WAIT_S, TlsServer, led, tls_server
from worker.testing import messages_double
from worker.testing.chat_double import ChatDouble, Step, use
from worker.workspaces.names import Project

CURL = "curl -sS --cacert ca.pem"


def _served(folder: Path) -> Path:
    served = folder / "served"
    served.mkdir()
    (served / "hello.txt").write_text("hello")
    return served


def _shop(folder: Path, server: TlsServer, *, lists: bool = True) -> Project:
    """A project whose repository holds the certificate of what it may reach."""
    source = folder / "source"
    source.mkdir()
    (source / "ca.pem").write_bytes(server.certificate.read_bytes())
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for words in (("init", "-q", "-b", "main"), ("add", "."), (*who, "commit", "-qm", "Begin")):
        subprocess.run(["git", *words], cwd=source, env=environ, check=True, capture_output=True, timeout=30)
    return Project.of("shop", str(source), (), (server.listed,) if lists else ())


@pytest.mark.live("sandbox")
async def test_an_acp_agent_reaches_it_and_its_model(tmp_path: Path) -> None:
    """Each by its own way; the answer says what was reached and what was not, and nothing of it holds a key."""
    with tls_server(_served(tmp_path)) as server:
        steps = [
            do("shell", command=f"{CURL} {server.url}/hello.txt"),
            do("shell", command=f"{CURL} https://example.org/; env"),
            do("model"),
        ]
        async with scripted(tmp_path, steps, projects={"shop": _shop(tmp_path, server)}) as at:
            answer = await at.call(project="shop")
            assert at.processes() == []
    text, structured = answer["content"][0]["text"], answer["structuredContent"]
    assert text.startswith("hello")
    assert KEY not in text
    assert structured["turns"] == 1
    assert structured["reached"][f"{NAME}:{server.port}"]["tunnels"] == 1
    assert structured["not_reached"] == {"example.org:443": "example.org:443 is not listed for project shop"}


@pytest.mark.live("sandbox")
async def test_where_nothing_is_listed_nothing_is_there(tmp_path: Path) -> None:
    """No variable, no socket, no word in the answer; also for a run without a project."""
    steps = [do("shell", command="env | grep -ic proxy; ls -A /run/mcpfleet")]
    with tls_server(_served(tmp_path)) as server:
        async with scripted(tmp_path, steps, projects={"shop": _shop(tmp_path, server, lists=False)}) as at:
            of_project = await at.call(project="shop")
            of_none = await at.call(invocation="inv-2")
    assert of_project["content"][0]["text"] == of_none["content"][0]["text"] == "0\negress.sock\n"
    assert "reached" not in of_project["structuredContent"]


@pytest.mark.live("sandbox")
async def test_a_cancelled_runs_tunnels_are_closed(tmp_path: Path) -> None:
    """The other side sees its end."""
    with tls_server(_served(tmp_path)) as server:
        steps = [do("shell", command=f"{CURL} {server.url}/hold")]
        async with scripted(tmp_path, steps, projects={"shop": _shop(tmp_path, server)}) as at:
            running = asyncio.create_task(at.call(project="shop"))
            assert await asyncio.to_thread(server.held.wait, WAIT_S)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert await asyncio.to_thread(server.left.wait, WAIT_S)
            assert list((at.folder / "state").rglob("reach.sock")) == []


@pytest.mark.live("claude")
async def test_claude_codes_commands_reach_it(tmp_path: Path) -> None:
    """The real one: its Bash goes through, its own requests to the model do not."""
    with tls_server(_served(tmp_path)) as server:
        command = f"{CURL} {server.url}/hello.txt; {CURL} https://example.org/"
        bash = messages_double.use("Bash", command=command, description="look")
        script = [[bash], [messages_double.text("Done.")]]
        projects = {"shop": _shop(tmp_path, server)}
        async with agents.bench(tmp_path, script, projects) as at:
            answer = await at.call(project="shop", allowed_tools=["Bash"])
    assert answer["content"][0]["text"] == "Done."
    assert "hello" in at.model.results()[0]
    assert "response 403" in at.model.results()[0]
    structured = answer["structuredContent"]
    assert structured["reached"][f"{NAME}:{server.port}"]["tunnels"] == 1
    assert list(structured["not_reached"]) == ["example.org:443"]


@pytest.mark.live("sandbox")
async def test_the_commands_of_a_chat_models_agent_reach_it(tmp_path: Path) -> None:
    """They have a way to what is listed, and none to the model."""
    with tls_server(_served(tmp_path)) as server:
        command = f"curl -sS -k {server.url}/hello.txt; exit 3"
        double = ChatDouble([Step(calls=(use("run_command", command=command),)), Step(text="Done.")])
        async with led(tmp_path / "run", server.listed) as at, sidecar(double) as chat, asyncio.timeout(WAIT_S):
            task = task_in(tmp_path, reach=at.socket)
            events = [event async for event in chat.run(task)]
    assert double.results() == ["hello\nexit status 3"]
    assert events
