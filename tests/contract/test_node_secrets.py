"""Secrets on a node: asked for when a real server starts, in its environment or in memory, never in a file or a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tasks.clock import SystemClock
from tasks.errors import OrchestratorDown
from tasks.outcome import Failure
from tasks.secret_wire import SecretGiven, SecretsReply, SecretsRequest, SecretWithheld
from tasks.secretref import parse_ref
from worker.secrets import NodeSecrets
from worker.testing import signing_server
from worker.testing.upstreams_kit import CLIENT, Kit, is_alive, until
from worker.upstreams.life import Limits
from worker.upstreams.servers_file import parse_servers
from worker.upstreams.upstreams import Upstreams

REF = "secret_ref:shop:signing"
SCRIPT = [sys.executable, "-S", signing_server.__file__]
ENV = {"command": SCRIPT[0], "args": SCRIPT[1:], "env": {"SIGNING_KEY": REF}}
FILE = {"command": SCRIPT[0], "args": [*SCRIPT[1:], "${secret_file:shop:signing}"]}


class Orchestrator:
    """What it would answer; `asked` is what it was."""

    def __init__(self) -> None:
        self.value: str | None = "key-" + secrets.token_hex(12)
        self.version, self.is_away = 1, False
        self.asked: list[SecretsRequest] = []

    def rotate(self) -> str:
        """A new value."""
        self.value, self.version = "key-" + secrets.token_hex(12), self.version + 1
        return self.value

    async def secrets(self, request: SecretsRequest) -> SecretsReply:
        """One secret, or none."""
        self.asked.append(request)
        if self.is_away:
            raise OrchestratorDown("http://127.0.0.1:1", "no connection")
        if self.value is None:
            return SecretsReply(withheld=tuple(SecretWithheld(ref=ref, why="not for you") for ref in request.refs))
        value = self.value if request.with_values else None
        version = str(self.version)
        return SecretsReply(
            given=tuple(
                SecretGiven.model_validate({"ref": r, "version": version, "value": value}) for r in request.refs
            )
        )


class Node(Kit):
    """Its servers, its secrets, and who gives them."""

    def __init__(self, upstreams: Upstreams, own: NodeSecrets, door: Orchestrator) -> None:
        super().__init__(upstreams)
        self.own, self.door = own, door

    async def signed(self, text: str = "x", server: str = "s") -> str:
        """What the server makes of it."""
        answer = await self.call(f"{server}.sign", {"text": text})
        return str(answer["content"][0]["text"])

    async def facts(self, server: str = "s") -> dict[str, Any]:
        """What the server tells of itself."""
        form: dict[str, Any] = json.loads((await self.call(f"{server}.facts"))["content"][0]["text"])
        return form

    async def ready(self, server: str = "s") -> None:
        """It answers."""
        await until(lambda: self.status(server).state == "ready")


@contextlib.asynccontextmanager
async def node_with(entry: dict[str, Any], *, has_joined: bool = True) -> AsyncIterator[Node]:
    """One server, `s`."""
    text = json.dumps({"mcpServers": {"s": entry}})
    config = parse_servers(text, source="test", environ=dict(os.environ))
    own, door = NodeSecrets(), Orchestrator()
    limits = Limits(health_every_s=3600)
    upstreams = Upstreams(config, clock=SystemClock(), draw=lambda: 0.0, client_info=CLIENT, limits=limits, secrets=own)
    own.restart = upstreams.restart
    if has_joined:
        own.joined(door)
    await upstreams.start()
    try:
        yield Node(upstreams, own, door)
    finally:
        await own.close()
        await upstreams.close()


async def test_a_server_has_its_secret_and_the_table_of_processes_has_not() -> None:
    """In the environment of that process alone: no argument list shows it."""
    async with node_with(ENV) as node:
        value = node.door.value or ""
        assert await node.signed() == signing_server.signature(value, "x")
        pid = (await node.facts())["pid"]
        assert value.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        assert value.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert value not in json.dumps(os.environ.copy())


async def test_a_secret_file_is_in_memory_for_us_alone_and_gone_with_the_server() -> None:
    """On tmpfs, mode 0600; neither the environment nor the arguments have the value."""
    async with node_with(FILE) as node:
        value = node.door.value or ""
        assert await node.signed() == signing_server.signature(value, "x")
        facts = await node.facts()
        path = Path(facts["file"])
        assert facts["mode"] == "600"
        assert path.parent.stat().st_mode & 0o777 == 0o700
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        on = max((words for words in mounts if path.is_relative_to(words[1])), key=lambda words: len(words[1]))
        assert on[2] in {"tmpfs", "ramfs"}
        for name in ("environ", "cmdline"):
            assert value.encode() not in Path(f"/proc/{facts['pid']}/{name}").read_bytes()
    assert not path.parent.exists()


async def test_what_a_server_says_of_its_secret_on_stderr_is_struck_out() -> None:
    """Values that came from a secret are treated as those from variables."""
    async with node_with(ENV) as node:
        with capture_logs() as logs:
            await node.call("s.complain")
            await until(lambda: any(one["event"] == "server_stderr" for one in logs))
        assert any("cannot sign with ***" in str(one) for one in logs)
        assert (node.door.value or "?") not in str(logs)


async def test_a_server_waits_for_its_secret_until_the_node_has_joined() -> None:
    """Servers are started before the node joins: this one says what it waits for, and starts at once then."""
    async with node_with(ENV, has_joined=False) as node:
        assert node.status("s").state == "waiting"
        assert "once this node has joined" in (node.status("s").error or "")
        node.own.joined(node.door)
        await node.ready()
        assert await node.signed() == signing_server.signature(node.door.value or "", "x")


async def test_an_orchestrator_that_is_away_is_asked_again() -> None:
    """A clear state, and the ordinary retry of a start that failed."""
    async with node_with(ENV, has_joined=False) as node:
        node.door.is_away = True
        node.own.joined(node.door)
        await until(lambda: "no connection" in (node.status("s").error or ""))
        node.door.is_away = False
        await node.ready()


async def test_a_secret_that_is_withheld_starts_nothing_and_says_why() -> None:
    """The server is not started with an empty key; the reason is the orchestrator's."""
    async with node_with(ENV, has_joined=False) as node:
        node.door.value = None
        node.own.joined(node.door)
        await until(lambda: "not for you" in (node.status("s").error or ""))
        assert not [name for name in node.names() if name.startswith("s.")]


async def test_a_new_version_restarts_the_server_between_calls(tmp_path: Path) -> None:
    """The call that runs ends on the old process, with the old key; the next one has the new."""
    async with node_with(ENV) as node:
        old, pid = node.door.value or "", (await node.facts())["pid"]
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        running = asyncio.create_task(node.call("s.hold", {"pipe": str(pipe), "text": "x"}))
        await until((tmp_path / "pipe.held").exists)
        new = node.door.rotate()
        node.own.marked("2")
        await until(lambda: len(node.door.asked) >= 2 and not node.door.asked[-1].with_values)
        assert is_alive(pid)
        pipe.write_text("go on")
        assert (await running)["content"][0]["text"] == signing_server.signature(old, "x")
        await until(lambda: not is_alive(pid))
        await node.ready()
        assert await node.signed() == signing_server.signature(new, "x")


async def test_a_mark_without_a_change_restarts_nothing() -> None:
    """Another secret of the fleet changed: versions are compared, values not even asked for."""
    async with node_with(ENV) as node:
        pid = (await node.facts())["pid"]
        node.own.marked("2")
        await until(lambda: len(node.door.asked) == 2)
        node.own.marked("2")
        assert (await node.facts())["pid"] == pid
        assert [one.with_values for one in node.door.asked] == [True, False]


async def test_a_mark_that_could_not_be_followed_is_followed_with_the_next_renewal() -> None:
    """No change is missed because the orchestrator was away for a moment."""
    async with node_with(ENV) as node:
        new = node.door.rotate()
        node.door.is_away = True
        node.own.marked("2")
        await until(lambda: len(node.door.asked) == 2)
        node.door.is_away = False

        def is_new() -> bool:
            node.own.marked("2")  # as every renewal does
            return len([one for one in node.door.asked if one.with_values]) == 2

        await until(is_new)
        await node.ready()
        assert await node.signed() == signing_server.signature(new, "x")


async def test_a_secret_that_is_taken_away_ends_the_server() -> None:
    """Deleted, or the node is out of its rule: what runs with it ends, and is not offered as well."""
    async with node_with(ENV) as node:
        pid = (await node.facts())["pid"]
        node.door.value = None
        node.own.marked("2")
        await until(lambda: not is_alive(pid))
        await until(lambda: "not for you" in (node.status("s").error or ""))
        assert (await node.refusal("s.sign")).failure is Failure.NOT_STARTED


async def test_a_held_key_is_there_after_the_join_and_is_the_newest() -> None:
    """An agent's key is read for each request: it is in memory, and nowhere else."""
    own, door = NodeSecrets(), Orchestrator()
    read = own.hold("claude", parse_ref(REF))
    with pytest.raises(OSError, match="not given"):
        read()
    own.joined(door)

    def is_there() -> bool:
        with contextlib.suppress(OSError):
            return read() == door.value
        return False

    def is_away() -> bool:
        return not is_there()

    await until(is_there)
    door.rotate()
    own.marked("2")
    await until(is_there)
    door.value = None
    own.marked("3")
    await until(is_away)
    await own.close()
