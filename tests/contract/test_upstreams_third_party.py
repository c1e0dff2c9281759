"""MCP servers that we did not write, from PyPI and npm, as a node runs them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tasks.outcome import Failure
from worker.testing.upstreams_kit import Kit, running, until


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository with one commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "the first"]):
        subprocess.run([*git, *words], check=True)
    return folder


@asynccontextmanager
async def those(third_party: dict[str, str], *names: str, args: tuple[str, ...] = ()) -> AsyncIterator[Kit]:
    """Some of them, ready."""
    form = {"mcpServers": {name: {"command": third_party[name], "args": list(args)} for name in names}}
    async with running(form) as kit:
        for name in names:
            assert kit.status(name).state == "ready", kit.status(name)
        yield kit


async def test_the_servers_from_pypi_answer(third_party: dict[str, str], repository: Path) -> None:
    """time, git and fetch start beside each other, list their tools, and answer."""
    async with those(third_party, "time", "git", "fetch") as kit:
        assert {"time.get_current_time", "git.git_log", "fetch.fetch"} <= kit.names()
        now, history = await asyncio.gather(
            kit.call("time.get_current_time", {"timezone": "Europe/Berlin"}),
            kit.call("git.git_log", {"repo_path": str(repository)}),
        )
        assert "Europe/Berlin" in now["content"][0]["text"]
        assert "the first" in history["content"][0]["text"]


async def test_an_error_of_a_tool_is_an_answer(third_party: dict[str, str]) -> None:
    """`isError` comes back as the tool gave it; it is not an error between us and the server."""
    async with those(third_party, "time") as kit:
        assert (await kit.call("time.get_current_time", {"timezone": "No/Where"}))["isError"] is True
        assert (await kit.refusal("time.no_such_tool")).failure is Failure.NOT_STARTED


async def test_many_calls_share_one_session(third_party: dict[str, str]) -> None:
    """A hundred calls at once over one process: every answer reaches the call that asked."""
    zones = ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/Lima"] * 25
    async with those(third_party, "time") as kit:
        answers = await asyncio.gather(*(kit.call("time.get_current_time", {"timezone": zone}) for zone in zones))
        assert [zone in answer["content"][0]["text"] for zone, answer in zip(zones, answers, strict=True)] == [
            True
        ] * 100
        assert kit.status("time").restarts == 0


async def test_a_page_that_cannot_be_fetched_is_told(third_party: dict[str, str]) -> None:
    """Without a network the fetch server answers that it could not, and stays."""
    async with those(third_party, "fetch") as kit:
        answer = await kit.call("fetch.fetch", {"url": "http://127.0.0.1:1/"})
        assert answer["isError"] is True
        assert kit.status("fetch").state == "ready"


@pytest.mark.live("npm-servers")
async def test_the_filesystem_server_from_npm_answers(third_party: dict[str, str], tmp_path: Path) -> None:
    """A server of the handshake era, in another language: read and write below the allowed folder."""
    async with those(third_party, "filesystem", args=(str(tmp_path),)) as kit:
        target = tmp_path / "note.txt"
        await kit.call("filesystem.write_file", {"path": str(target), "content": "written by a tool"})
        assert target.read_text() == "written by a tool"
        outside = await kit.call("filesystem.read_text_file", {"path": "/etc/hostname"})
        assert outside["isError"] is True


@pytest.mark.live("npm-servers")
async def test_the_everything_server_from_npm_answers(third_party: dict[str, str]) -> None:
    """All kinds of content, and progress, over stdio."""
    told: list[tuple[object, ...]] = []
    async with those(third_party, "everything") as kit:
        assert "hello" in (await kit.call("everything.echo", {"message": "hello"}))["content"][0]["text"]
        image = await kit.call("everything.get-tiny-image")
        assert {part["type"] for part in image["content"]} >= {"image", "text"}
        await kit.call(
            "everything.trigger-long-running-operation",
            {"duration": 1, "steps": 4},
            on_progress=lambda *report: told.append(report),
        )
        assert [report[0] for report in told] == [1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def everything_url(third_party: dict[str, str], unused_tcp_port: int) -> Iterator[str]:
    """The everything server, on Streamable HTTP."""
    node = shutil.which("node")
    assert node is not None
    environment = {"PORT": str(unused_tcp_port), "PATH": str(Path(node).parent)}
    process = subprocess.Popen([third_party["everything"], "streamableHttp"], env=environment)
    try:
        yield f"http://127.0.0.1:{unused_tcp_port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.live("npm-servers")
async def test_the_everything_server_answers_over_http(everything_url: str) -> None:
    """The handshake era over Streamable HTTP, with its session and its stream of notifications."""
    async with running({"mcpServers": {"everything": {"url": everything_url}}}) as kit:
        await until(lambda: kit.status("everything").state == "ready")
        assert kit.status("everything").protocol == "2025-11-25"
        answers = await asyncio.gather(*(kit.call("everything.get-sum", {"a": n, "b": 1}) for n in range(20)))
        assert [str(n + 1) in answer["content"][0]["text"] for n, answer in enumerate(answers)] == [True] * 20
