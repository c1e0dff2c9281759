"""Which control groups are found and made, on trees of files in the kernel's two forms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.confines import hierarchies
from worker.confines.confines import DATA_MIN_BYTES, rlimits
from worker.confines.groups import Allowance, Group, Met, family
from worker.confines.hierarchies import Hierarchy, NotOurs, found, prepared

SHARE = Allowance(memory_bytes=2**32, cpus=1.5, processes=512)


def _group(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def _v2(root: Path, *, pids: str = "", name: str = "node.service") -> Path:
    """A service's own group, delegated: the kernel makes files in each folder, so `mkdir` does here."""
    return _group(
        root / name,
        cgroup__controllers="cpu io memory pids\n",
        cgroup__subtree_control="",
        cgroup__type="domain\n",
        cgroup__procs=pids,
    )


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """New groups come with their files, and go with them."""
    make, remove = Path.mkdir, Path.rmdir

    def mkdir(path: Path, *args: object, **more: object) -> None:
        make(path, *args, **more)  # type: ignore[arg-type]
        for name in ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "pids.max", "cpu.max"):
            (path / name).touch()

    def rmdir(path: Path) -> None:
        for file in path.iterdir():
            file.unlink()
        remove(path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", rmdir)


def test_version_2_is_found_where_it_has_controllers(tmp_path: Path) -> None:
    """Below our own group, with what it offers of what we limit."""
    own = _v2(tmp_path)
    mounts = f"30 24 0:26 / {tmp_path} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    [one] = found(mounts, "0::/node.service\n")
    assert one == Hierarchy(own, tmp_path, frozenset({"cpu", "memory", "pids"}), is_v2=True)


def test_version_1_beside_an_empty_version_2_is_found(tmp_path: Path) -> None:
    """Each hierarchy by itself, also where a container sees only its own part of it."""
    _group(tmp_path / "memory/box/mine")
    _group(tmp_path / "pids")
    _group(tmp_path / "unified", cgroup__controllers="hugetlb\n")
    mounts = (
        f"31 24 0:27 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"32 24 0:28 /docker/1 {tmp_path}/pids rw - cgroup cgroup rw,pids\n"
        f"33 24 0:29 / {tmp_path}/freezer rw - cgroup cgroup rw,freezer\n"
        f"34 24 0:30 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
    )
    said = "4:memory:/box/mine\n8:pids:/docker/1\n0::/\n"
    assert {(one.own, one.is_v2) for one in found(mounts, said)} == {
        (tmp_path / "memory/box/mine", False),
        (tmp_path / "pids", False),
    }


@pytest.mark.usefixtures("kernel")
def test_a_delegated_group_is_emptied_and_hands_its_controllers_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node moves into a group beside its runs': the kernel wants no process in a group that hands on."""
    own = _v2(tmp_path, pids=f"{os.getpid()}\n")
    moved: list[str] = []

    def pids_in(group: Path) -> set[int]:
        said = (own / hierarchies.NODE / "cgroup.procs").read_text() if (own / hierarchies.NODE).exists() else ""
        moved.append(said)
        return set() if said or group != own else {os.getpid()}

    monkeypatch.setattr(hierarchies, "pids_in", pids_in)
    made, why = family(
        [Hierarchy(own, tmp_path, frozenset({"memory", "pids", "cpu"}), is_v2=True)], "mcpfleet-agents-x"
    )
    assert (why, moved[-1]) == ((), str(os.getpid()))
    assert made is not None
    assert made.version == 2
    made.make("glm-inv-1", SHARE)
    [group] = [path for path in (own / "mcpfleet-agents-x").iterdir() if path.is_dir()]
    limits = {name: (group / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
    assert limits == {
        "memory.max": str(2**32),
        "memory.swap.max": "0",
        "pids.max": "512",
        "cpu.max": "150000 100000",
    }


@pytest.mark.usefixtures("kernel")
def test_processes_of_others_are_not_moved(tmp_path: Path) -> None:
    """A login session's group is not the node's: it says to start it as a service."""
    own = _v2(tmp_path, pids=f"{os.getpid()}\n1\n", name="session-1.scope")
    with pytest.raises(NotOurs, match="Delegate=yes"):
        prepared(Hierarchy(own, tmp_path, frozenset({"memory"}), is_v2=True), "mcpfleet-agents-x")
    assert not (own / hierarchies.NODE).exists()


@pytest.mark.parametrize(
    ("files", "met"),
    [
        ({"memory__events": "low 0\nmax 7\noom 1\noom_kill 2\n", "pids__events": "max 3\n"}, Met(2, 3)),
        ({"memory__oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"}, Met(1, 0)),
        ({}, Met(0, 0)),
    ],
)
def test_what_a_run_met_is_read_in_both_forms(tmp_path: Path, files: dict[str, str], met: Met) -> None:
    """Processes that were ended, and forks that were refused."""
    assert Group((_group(tmp_path / "run", **files),)).met() == met


def test_rlimits_are_only_what_helps() -> None:
    """Nothing for root's processes, and no less memory than Claude Code starts with."""
    assert rlimits(Allowance(), 1000) == ()
    assert rlimits(Allowance(processes=512), 0) == ()
    assert rlimits(Allowance(memory_bytes=2**20, processes=512), 1000)[1:] == (
        f"--data={DATA_MIN_BYTES}:{DATA_MIN_BYTES}",
        "--nproc=512:512",
        "--",
    )
