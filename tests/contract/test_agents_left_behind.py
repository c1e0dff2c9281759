"""What a run leaves is found, counted and removed: also after the node was killed in the middle of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.testing.serving import serving
from tasks.invocation import Lane
from tests.contract.chat_node import glm
from tests.contract.claude_binary import BINARY, VERSION
from tests.contract.confined_rig import forget_groups, groups_of, needs_groups
from worker.confines.confines import Confines
from worker.confines.groups import Allowance
from worker.confines.janitor import Janitor
from worker.confines.processes import killed, words_of
from worker.testing.chat_double import ChatDouble
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.messages_double import MessagesDouble, text, use
from worker.testing.node_process import node_process
from worker.workspaces import sandbox

WAIT_S = 60.0
MINFO, OWN = Path("/proc/self/mountinfo"), Path("/proc/self/cgroup")


def _alive(word: str) -> list[int]:
    """Processes with this word in what they were started with."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if any(word in said for said in words_of(pid))]


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - of the kernel, which tells nobody
            await asyncio.sleep(0.02)


def _started(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words)


def _status(*words: str) -> int:
    return subprocess.run(words, check=False, capture_output=True, timeout=20).returncode


@asynccontextmanager
async def _agent(folder: Path, script: list[list[dict[str, object]]]) -> AsyncIterator[dict[str, str]]:
    """The model, and the environment of a node that has Claude Code beside it."""
    (folder / "key").write_text("not-a-secret")
    async with serving(MessagesDouble(script).app) as url:
        entry = {
            "kind": "claude_code",
            "binary": str(BINARY),
            "version": VERSION,
            "key_file": str(folder / "key"),
            "url": url,
            "model": "claude-sonnet-5",
        }
        servers = folder / "servers.json"
        servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": {"sidecars": {"claude_code": entry}}}))
        yield {"MCPFLEET_NODE_SERVERS": str(servers)}


@pytest.mark.live("claude")
async def test_a_killed_node_leaves_no_process_and_its_next_start_no_folder(redis_url: str, tmp_path: Path) -> None:
    """Kill -9 in the middle of a run, with a child that left its session: all of it ends at once, the rest at start."""
    nap = f"{os.getpid()}.25"
    script = [[use("Bash", command=f"setsid sleep 1{nap} & sleep 2{nap}")], [text("never said")]]
    home = tmp_path / "state/a1/sidecars/claude_code"
    async with FakeOrchestrator(redis_url).serving() as fake, _agent(tmp_path, script) as further:
        async with node_process(fake, tmp_path / "state", os.environ, further=further) as node:
            arguments = json.dumps({"prompt": "sleep", "allowed_tools": ["Bash"]})
            await fake.call("claude_code.run", arguments, lane=Lane.AGENTS, timeout_s=600.0)
            await _until(lambda: _alive(f"1{nap}") and _alive(f"2{nap}"))
            assert [path.name for path in (home / "scratch").iterdir()] != []
            await node.kill()
            await _until(lambda: not _alive(nap) and not _alive(str(home)))
        async with node_process(fake, tmp_path / "state", os.environ, further=further) as again:
            await again.health_until(lambda view: "claude_code" in str(view["servers"]))
            assert list((home / "scratch").iterdir()) == []
            assert list((home / "runs").iterdir()) == []
            assert groups_of(home) == []
            assert await again.metric('mcpfleet_agent_leaks_total{kind="folders",sidecar="claude_code"}') == 1
            assert await again.metric('mcpfleet_agent_leaks_total{kind="processes",sidecar="claude_code"}') == 0
            assert "claude_code" in str((await again.health())["agent_limits"])
    forget_groups(home)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A sidecar's folder, as a node that was killed left it."""
    made = tmp_path / "state/sidecars/glm"
    for folder in ("scratch/tmpold/workspace", "scratch/tmpold/home", "workspaces/runs/glm-old/work", "runs"):
        (made / folder).mkdir(parents=True)
    (made / "runs/glm-old.inner").write_text("exec true\n")
    return made


@pytest.fixture
def orphan(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A sandbox that did not die with its node."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    world = sandbox.Sandbox(home / "scratch/tmpold/workspace", home / "scratch/tmpold/home", egress=None)
    words = [word for word in sandbox.command(bwrap, world, ("/bin/sleep", "1000")) if word != "--die-with-parent"]
    with subprocess.Popen(words, env=sandbox.environ(world)) as process:
        yield process
        for pid in _alive(str(home)):  # its inner process would outlive it
            killed(pid)
        process.kill()


def _confines(home: Path) -> Confines:
    confines = Confines("glm", home, Allowance(processes=100), mountinfo=MINFO.read_text(), own=OWN.read_text())
    confines.start()
    return confines


async def test_a_sandbox_without_a_node_is_ended_at_the_start(home: Path, orphan: subprocess.Popen[bytes]) -> None:
    """Found by the folders that it was given, counted, and its files go after it."""
    confines = _confines(home)
    try:
        await _until(lambda: _alive(str(home)))
        left = await Janitor("glm", home, confines).look(at_start=True)
        assert await asyncio.to_thread(orphan.wait, WAIT_S) != 0
    finally:
        confines.close()
    assert left["processes"] >= 1
    assert (left["folders"], left["files"]) == (2, 1)
    assert list((home / "scratch").iterdir()) == []


async def test_what_lives_or_is_young_is_left_alone(home: Path, orphan: subprocess.Popen[bytes]) -> None:
    """A run at work keeps its processes and its files; a folder that was just made may become a run."""
    confines = _confines(home)
    try:
        janitor = Janitor("glm", home, confines)
        async with confines.around("glm-inv-1", home / "scratch/tmpold"):
            assert not await janitor.look()
            assert orphan.poll() is None
        assert (await janitor.look())["processes"] >= 1
    finally:
        confines.close()
    assert (home / "workspaces/runs/glm-old/work").is_dir()


@needs_groups
async def test_a_group_with_somebody_in_it_is_emptied(tmp_path: Path) -> None:
    """Whatever a run left running in its group is ended, and the group removed."""
    folder = tmp_path / "state/sidecars/glm"
    folder.mkdir(parents=True)
    earlier = _confines(folder)
    assert earlier.family is not None
    group = earlier.family.make("glm-inv-1", Allowance(processes=100))
    into = "".join(f"echo $$ > {path}; " for path in group.entrances)
    with _started("/bin/sh", "-c", f"{into}exec sleep 1000") as process:
        await _until(lambda: process.pid in group.processes())
        later = _confines(folder)
        left = await Janitor("glm", folder, later).look()
        assert process.pid not in group.processes()
        process.kill()
    later.close()
    assert left == {"groups": 1, "processes": 1}
    assert groups_of(folder) == []


@pytest.mark.live("root")
async def test_a_mount_of_a_run_that_is_over_is_taken_away_before_its_folder(home: Path, tmp_path: Path) -> None:
    """What is behind the mount is somebody's, and stays."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("somebody's")
    where = home / "scratch/tmpold/workspace"
    if _status("mount", "--bind", str(kept), str(where)):
        pytest.skip("this root may not mount")
    confines = _confines(home)
    try:
        left = await Janitor("glm", home, confines).look(at_start=True)
    finally:
        confines.close()
        _status("umount", "-l", str(where))
    assert (left["mounts"], left["folders"]) == (1, 2)
    assert (kept / "file").read_text() == "somebody's"


async def test_a_node_without_groups_says_what_it_cannot_keep(tmp_path: Path) -> None:
    """In its status, once; and its runs are started under what rlimits there are."""
    confines = Confines("glm", tmp_path, Allowance(memory_bytes=2**32, processes=512), mountinfo="", own="")
    confines.start()
    assert "NOT KEPT: memory is limited for each process only" in confines.means.text()
    assert "Delegate" in str(confines.means.weak)
    async with confines.around("glm-inv-1", tmp_path) as confined:
        assert f"--data={2**32}:{2**32}" in confined.entering
    async with glm(tmp_path, ChatDouble([])) as server:
        assert server.status().limits is not None
