"""The parts of a local fleet that need no fleet: guard, children, locks, logs, plans, ownership."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import psutil
import pytest

from orchestrator.cli import ownership
from orchestrator.local import guard
from orchestrator.local.child import Child, ChildSpec
from orchestrator.local.errors import AlreadyUp, ChildFailed
from orchestrator.local.fleet import together
from orchestrator.local.guardline import GuardLine
from orchestrator.local.lock import StateLock
from orchestrator.local.logfile import LogFile, masked
from orchestrator.local.plan import Plan, plan_up, two_pools
from orchestrator.local.servers import Installed, discover, search_path, write_servers_file
from tasks.errors import SettingsError
from worker.upstreams.servers_file import load_servers

GONE_WITHIN_S = 20.0
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("ready", child.pid, flush=True)
time.sleep(600)
"""
"""Ignores SIGTERM, and has a child in a session of its own, as MCP servers are."""
POLITE = "import sys; print('ready', flush=True); sys.stdin.read()"


class Heard:
    """What a registrar is told."""

    mark: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def started(self, group: int, grace_s: float) -> None:
        """Kept."""
        self.said.append(("started", group))

    def ended(self, group: int) -> None:
        """Kept."""
        self.said.append(("ended", group))


def _spec(tmp_path: Path, code: str, **given: object) -> ChildSpec:
    log = tmp_path / "child.log"

    async def ready() -> bool:
        return "ready" in await asyncio.to_thread(log.read_text)

    argv = (sys.executable, "-c", code)
    return ChildSpec(name="child", argv=argv, environ=dict(os.environ), cwd=tmp_path, ready=ready, **given)  # type: ignore[arg-type]


def _child(tmp_path: Path, code: str, heard: Heard | None = None, **given: object) -> Child:
    return Child(_spec(tmp_path, code, **given), LogFile(tmp_path / "child.log"), heard or Heard())


async def test_stubborn_child_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """Also what it put into another session; and whoever counts groups is told."""
    heard = Heard()
    child = _child(tmp_path, STUBBORN, heard, stop_within_s=0.2)
    await child.start()
    await child.until_ready()
    group = child.pid
    assert group is not None
    family = psutil.Process(group).children(recursive=True)
    assert family
    assert await child.stop(asyncio.Event()) is False
    assert psutil.wait_procs(family, GONE_WITHIN_S)[1] == []
    assert heard.said == [("started", group), ("ended", group)]


async def test_hurry_ends_the_wait(tmp_path: Path) -> None:
    """The second Ctrl-C does not wait for anybody's grace."""
    child = _child(tmp_path, STUBBORN, stop_within_s=600.0)
    await child.start()
    await child.until_ready()
    hurry = asyncio.Event()
    hurry.set()
    assert await asyncio.wait_for(child.stop(hurry), GONE_WITHIN_S) is False
    assert child.pid is None


async def test_child_that_dies_at_its_start_shows_its_last_words(tmp_path: Path) -> None:
    """The first thing whoever reads the error wants to know."""
    child = _child(tmp_path, "raise SystemExit('no such table')")
    await child.start()
    with pytest.raises(ChildFailed, match="ended at its start with status 1") as caught:
        await child.until_ready()
    assert caught.value.tail == "no such table"


async def test_program_that_is_not_there_is_a_failed_child(tmp_path: Path) -> None:
    """Not a traceback."""
    spec = ChildSpec("x", (str(tmp_path / "none"),), {}, tmp_path, ready=_never)
    with pytest.raises(ChildFailed, match="cannot be started"):
        await Child(spec, LogFile(tmp_path / "x.log"), Heard()).start()


async def _never() -> bool:
    return False


async def test_what_is_sent_to_stdin_arrives_whole(tmp_path: Path) -> None:
    """Redis gets its settings this way."""
    code = "import sys; print('ready', len(sys.stdin.read()), flush=True)"
    child = _child(tmp_path, code, stdin=b"x" * 300_000)
    await child.start()
    assert await child.died() == 0
    assert child.log.tail(1) == "ready 300000"


async def test_first_failure_cancels_the_rest_and_is_raised_bare() -> None:
    """An exception group would hide which process failed."""
    cancelled = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fails() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await together(waits(), fails())
    assert cancelled.is_set()


def _leader(code: str, variables: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **variables},
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _reap(process: subprocess.Popen[bytes]) -> int:
    return process.wait(GONE_WITHIN_S)


def test_guard_ends_what_its_parent_left(tmp_path: Path) -> None:
    """Asks first, then kills, then removes files; what ended before is left alone."""
    stubborn, polite, other = _leader(STUBBORN), _leader(POLITE), _leader(POLITE)
    family = psutil.Process(stubborn.pid).children(recursive=True)
    secret = tmp_path / "fleet.json"
    secret.write_text("{}")
    words = [
        {"say": "started", "group": other.pid, "grace_s": 0.1},
        {"say": "started", "group": polite.pid, "grace_s": 5.0},
        {"say": "started", "group": stubborn.pid, "grace_s": 0.1},
        {"say": "remove", "path": str(secret)},
        {"say": "ended", "group": other.pid},
    ]
    reaper = threading.Thread(target=_reap, args=(polite,))
    reaper.start()
    guard.main([*(json.dumps(word) + "\n" for word in words), '{"say": "star'])
    reaper.join()
    assert (polite.returncode, _reap(stubborn)) == (-signal.SIGTERM, -signal.SIGKILL)
    assert psutil.wait_procs(family, GONE_WITHIN_S)[1] == []
    assert other.poll() is None
    assert not secret.exists()
    other.communicate(timeout=GONE_WITHIN_S)


def test_guard_ends_what_was_started_and_not_told_of() -> None:
    """The parent died between the two; the child's environment names whose it was."""
    ours, foreign = _leader(STUBBORN, {guard.MARK: "ours"}), _leader(POLITE, {guard.MARK: "another"})
    guard.main([json.dumps({"say": "mark", "mark": "ours"}) + "\n"])
    assert _reap(ours) == -signal.SIGKILL
    assert foreign.poll() is None
    foreign.communicate(timeout=GONE_WITHIN_S)


def test_dismissed_guard_touches_nothing() -> None:
    """After an orderly stop a process number may belong to somebody else."""
    polite = _leader(POLITE)
    line = GuardLine()
    line.started(polite.pid, 0.1)
    line.dismiss()
    assert not psutil.pid_exists(line.pid)
    assert polite.poll() is None
    polite.communicate(timeout=GONE_WITHIN_S)


def test_guard_outlives_the_signals_of_the_terminal() -> None:
    """Ctrl-C reaches the whole foreground group; the guard must stay until all are gone."""
    line = GuardLine()
    assert os.getsid(line.pid) == line.pid
    line.dismiss()


def test_one_fleet_per_directory(tmp_path: Path) -> None:
    """The second is told who holds it; after release it may, and no file stays."""
    first, second = StateLock(tmp_path), StateLock(tmp_path)
    first.take()
    with pytest.raises(AlreadyUp, match=f"process {os.getpid()}"):
        second.take()
    first.release()
    second.take()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """`kill -9` leaves a file, not a lock."""
    code = (
        "import sys, pathlib; from orchestrator.local.lock import StateLock\n"
        f"StateLock(pathlib.Path({str(tmp_path)!r})).take(); print('ready', flush=True); sys.stdin.read()"
    )
    holder = _leader(code)
    holder.kill()
    _reap(holder)
    lock = StateLock(tmp_path)
    lock.take()
    lock.release()


def test_log_stays_within_bounds_and_keeps_the_newest(tmp_path: Path) -> None:
    """A fleet left alone for a month does not fill the disk."""
    log = LogFile(tmp_path / "x.log", limit_bytes=1000)
    descriptor = log.open()
    for number in range(200):
        os.write(descriptor, f"line {number:03}\n".encode())
    log.bound()
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert log.path.read_text() == "after\n"
    older = (tmp_path / "x.log.1").read_text()
    assert older.endswith("line 199\n")
    assert len(older) <= 1000
    assert log.new_lines() == ["after"]


def test_log_is_handed_out_once_and_by_whole_lines(tmp_path: Path) -> None:
    """`--verbose` shows neither half a line nor the run before."""
    log = LogFile(tmp_path / "x.log")
    log.path.write_text("of the run before\n")
    descriptor = log.open()
    os.write(descriptor, b"one\ntw")
    assert log.new_lines() == ["one"]
    os.write(descriptor, b"o\n")
    os.close(descriptor)
    assert log.new_lines() == ["two"]
    assert log.new_lines() == []
    assert LogFile(tmp_path / "none").tail(3) == ""


def test_passwords_in_addresses_are_masked() -> None:
    """A log shown on a screen may be shared."""
    assert masked("redis://:s3cret@127.0.0.1:1/0 and http://u:p@h/") == "redis://:***@127.0.0.1:1/0 and http://u:***@h/"


ENVIRON = {
    "PATH": "/bin",
    "MCPFLEET_URL": "http://elsewhere",
    "MCPFLEET_TOKEN": "of-elsewhere",
    "MCPFLEET_STATE_DIR": "/s",
    "MCPFLEET_LOG_LEVEL": "DEBUG",
    "MCPFLEET_NODE_SLOTS_TOOLS": "2",
}


def test_each_child_gets_its_own_settings_and_no_others() -> None:
    """An unknown setting stops a start, and another fleet's token must not reach this one."""
    plan = Plan(Path("/s"), ENVIRON, ())
    assert plan.base_environ() == {"PATH": "/bin"}
    assert plan.orchestrator_environ() == {"PATH": "/bin", "MCPFLEET_LOG_LEVEL": "DEBUG"}
    assert plan.node_environ() == {"PATH": "/bin", "MCPFLEET_NODE_SLOTS_TOOLS": "2"}


def test_two_pools_differ_in_what_they_can_do() -> None:
    """So that routing by capability has something to show, with or without servers installed."""
    found = {name: Installed(name, f"/bin/{name}") for name in ("time", "fetch", "git")}
    plan = {node.name: node for node in two_pools(found, general=2)}
    assert list(plan) == ["general-1", "general-2", "builders-1"]
    assert [server.name for server in plan["general-1"].servers] == ["time", "fetch"]
    assert [server.name for server in plan["builders-1"].servers] == ["time", "git"]
    assert plan["builders-1"].capabilities == ("build",)
    assert len(two_pools({}, general=1)) == 2


def test_servers_are_found_beside_the_interpreter_and_on_the_path(tmp_path: Path) -> None:
    """`make servers` puts them into an environment of their own; a user has them on the PATH."""
    made = tmp_path / ".cache" / "servers" / "bin"
    made.mkdir(parents=True)
    (made / "mcp-server-time").touch(mode=0o755)
    path = search_path("", str(tmp_path / ".venv" / "bin" / "python"))
    assert discover(path)["time"].command == str(made / "mcp-server-time")
    assert discover("/nowhere") == {}


def test_servers_file_is_one_that_a_node_reads(tmp_path: Path) -> None:
    """Written by one side, read by the other."""
    path = tmp_path / "servers.json"
    servers = [Installed("time", "mcp-server-time", ("--x",), {"A": "b"}, {"is_safe": True}), Installed("git", "g")]
    write_servers_file(path, servers)
    file = load_servers(path, {"PATH": "/bin"})
    assert [server.name for server in file.servers] == ["time", "git"]


def test_servers_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(SettingsError, match=r"none\.json"):
        plan_up(
            state_dir=tmp_path,
            environ={},
            port=0,
            general=1,
            servers=tmp_path / "none.json",
            with_flower=False,
            ephemeral=False,
        )


def test_a_local_fleet_with_tls_is_refused(tmp_path: Path) -> None:
    """Its own parts speak to it without: they would wait for ever, and nobody said why."""
    with pytest.raises(SettingsError, match="mcpfleet serve"):
        plan_up(
            state_dir=tmp_path,
            environ={"MCPFLEET_TLS": "true"},
            port=0,
            general=1,
            servers=None,
            with_flower=False,
            ephemeral=False,
        )


@pytest.mark.parametrize(
    ("owners", "is_ours"),
    [
        ({"tasks": ["mcpfleet"], "orchestrator": ["mcpfleet"], "worker": ["mcpfleet"]}, True),
        ({}, True),
        ({"tasks": ["tasks"]}, False),
        ({"tasks": ["mcpfleet", "tasks"]}, False),
    ],
)
def test_package_of_a_stranger_stops_every_start(
    owners: Mapping[str, list[str]], is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install tasks` would overwrite our contract without a word."""
    monkeypatch.setattr(ownership.metadata, "packages_distributions", lambda: owners)
    if is_ours:
        ownership.require()
    else:
        with pytest.raises(SettingsError, match="pip uninstall tasks"):
            ownership.require()
