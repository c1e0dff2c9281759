"""A remote that is not there, asks for a password, hangs or breaks: each ends as an error that says what to do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from tasks.errors import FleetError, InvalidProject, Permanent, Retryable
from tests.contract.workspace_rig import Rig, git
from worker.workspaces.errors import (
    DiskFull,
    GitFailed,
    GitTooSlow,
    HostUnknown,
    InvalidRemote,
    RemoteNeedsPassword,
    RemoteRefused,
    RemoteUnreachable,
    RepositoryMissing,
    UnknownRef,
)
from worker.workspaces.git import Git
from worker.workspaces.names import Project, remote_of
from worker.workspaces.quota import WorkspaceLimits
from worker.workspaces.workspaces import Workspaces

UNAUTHORISED = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with three files, and a node without any."""
    made = Rig(tmp_path)
    made.begin()
    return made


@contextlib.asynccontextmanager
async def _http(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives every request one answer (None: none at all), and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def _fails(rig: Rig, remote: str, workspaces: Workspaces | None = None) -> FleetError:
    with pytest.raises(FleetError) as raised:
        async with (workspaces or rig.workspaces()).open(Project.of("shop", remote), None, "run1"):
            pass
    assert list((rig.node / "runs").iterdir()) == []
    return raised.value


def _ssh(rig: Rig, script: str) -> Workspaces:
    """A node whose ssh is this script; what it is asked is its last word."""
    program = rig.folder / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Workspaces(
        rig.node, rig.limits, rig.clock, environ={"GIT_SSH_COMMAND": str(program), "GIT_SSH_VARIANT": "ssh"}
    )


# ---------------------------------------------------------------- refused, or not there


async def test_a_password_is_asked_of_nobody(rig: Rig) -> None:
    """A server that says 401 ends the run at once with what to do, instead of waiting at a prompt."""
    async with _http(UNAUTHORISED) as (address, asked):
        error = await _fails(rig, f"http://{address}/shop.git")
    assert type(error) is RemoteNeedsPassword
    assert isinstance(error, Permanent)
    assert "ssh key" in error.message
    assert asked


async def test_a_token_of_the_address_reaches_the_server_and_nobody_else(rig: Rig) -> None:
    """It goes as a header: not into the message, the command line, the mirror, or the agent's clone."""
    seen: list[bytes] = []
    async with _http(UNAUTHORISED) as (address, asked):
        watch = asyncio.create_task(_command_lines(seen))
        error = await _fails(rig, f"http://robot:not-a-secret@{address}/shop.git")
        watch.cancel()
    assert b"Basic " + base64.b64encode(b"robot:not-a-secret") in b"".join(asked)
    assert "not-a-secret" not in error.message
    assert any(b"remote-http" in line for line in seen)
    assert not [line for line in seen if b"not-a-secret" in line]
    written = [path for path in rig.node.rglob("*") if path.is_file() and b"not-a-secret" in path.read_bytes()]
    assert not written


async def _command_lines(seen: list[bytes]) -> None:
    """Of all git processes, as anybody on the machine can read them."""
    while True:
        seen += [line for line in _running() if b"git" in line]
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answer", "expected", "kind"),
    [(MISSING, RepositoryMissing, Permanent), (BROKEN, RemoteUnreachable, Retryable)],
    ids=["404", "503"],
)
async def test_what_a_web_server_says_decides(
    rig: Rig, answer: bytes, expected: type[FleetError], kind: type[FleetError]
) -> None:
    """Not there is for a person; a server in trouble is asked again."""
    async with _http(answer) as (address, _):
        error = await _fails(rig, f"http://{address}/shop.git")
    assert type(error) is expected
    assert isinstance(error, kind)


async def test_a_server_that_never_answers_is_given_up(rig: Rig) -> None:
    """Within the limit for a fetch, leaving no process behind."""
    rig.limits = WorkspaceLimits(fetch_s=1.0)
    async with _http(None) as (address, _):
        error = await _fails(rig, f"http://{address}/shop.git")
        assert type(error) is GitTooSlow
        assert isinstance(error, Retryable)
        assert not [line for line in _running() if address.encode() in line]


def _running() -> list[bytes]:
    """The command line of every process, those left out that end meanwhile."""
    lines = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            lines += [(entry / "cmdline").read_bytes()] if entry.name.isdecimal() else []
    return lines


async def test_nobody_at_the_address_is_retryable(rig: Rig) -> None:
    """A port that nobody listens on: the machine may come back."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        error = await _fails(rig, f"http://127.0.0.1:{taken.getsockname()[1]}/shop.git")
    assert type(error) is RemoteUnreachable
    assert isinstance(error, Retryable)


async def test_a_path_without_a_repository_is_said(rig: Rig) -> None:
    """No folder, and a folder that is none."""
    (rig.folder / "plain").mkdir()
    for path in (rig.folder / "nowhere.git", rig.folder / "plain"):
        error = await _fails(rig, str(path))
        assert type(error) is RepositoryMissing
        assert str(path) in error.message


@pytest.mark.live("root")
async def test_a_repository_of_somebody_else_is_said(rig: Rig) -> None:
    """Git does not work in a folder of another user; the message says how to let it."""
    for path in [rig.remote, *rig.remote.rglob("*")]:
        os.chown(path, 12345, 12345)
    assert type(await _fails(rig, str(rig.remote))) is RemoteRefused


async def test_a_repository_without_commits_is_said(rig: Rig) -> None:
    """There is nothing to work on: a person has to push first."""
    git(rig.folder, "init", "-q", "--bare", "empty.git")
    error = await _fails(rig, str(rig.folder / "empty.git"))
    assert type(error) is UnknownRef
    assert "push one" in error.message


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("git@host: Permission denied (publickey).", RemoteNeedsPassword),
        ("Host key verification failed.", HostUnknown),
        ("ssh: Could not resolve hostname host: Name or service not known", RemoteUnreachable),
        ("ssh: connect to host host port 22: Connection timed out", RemoteUnreachable),
        ("ERROR: Repository not found.", RepositoryMissing),
    ],
)
async def test_what_ssh_says_decides(rig: Rig, said: str, expected: type[FleetError]) -> None:
    """Git adds the same two lines to all of them; ours say which it was."""
    error = await _fails(rig, "git@host.example:shop.git", _ssh(rig, f"echo '{said}' >&2; exit 255"))
    assert type(error) is expected


@pytest.mark.parametrize(
    "remote",
    [
        "ext::sh -c touch% sprung",
        "fd::17",
        "--upload-pack=touch sprung",
        "-oProxyCommand=touch",
        "ssh://-oProxyCommand=touch/x",
        "relative/path",
        "ftp://host/x",
        "https://",
        "https://ho st/x",
        "https://host:port/x",
        "ssh://git:not-a-secret@host/x",
        "/tmp/a\nb",
        "-host:path",
        "",
    ],
)
def test_a_remote_that_could_be_something_else_is_refused(remote: str) -> None:
    """Other protocols start programs; options are read by git or ssh. The message repeats no password."""
    with pytest.raises(InvalidRemote) as raised:
        remote_of(remote)
    assert "not-a-secret" not in raised.value.message


@pytest.mark.parametrize(
    "remote", ["https://h/x.git", "git@h:a/b.git", "h:b", "ssh://git@h:22/b", "/a b/c", "file:///a", "git://h/b"]
)
def test_usual_addresses_are_taken(remote: str) -> None:
    """As a person writes them."""
    assert remote_of(remote).url == remote


def test_a_project_by_a_wrong_name_is_refused() -> None:
    """It names a folder."""
    with pytest.raises(InvalidProject):
        Project.of("../shop", "/srv/shop.git")


# ---------------------------------------------------------------- side by side


UPLOAD = 'for last; do :; done; echo x >> "{log}"; exec sh -c "$last"'


async def test_two_runs_at_once_fetch_once(rig: Rig) -> None:
    """The second waits for the first one's fetch and takes it; a later run fetches anew."""
    log = rig.folder / "fetches"
    workspaces = _ssh(rig, UPLOAD.format(log=log))
    others = Workspaces(rig.node, rig.limits, rig.clock, environ=workspaces._git._environ)  # another process's
    project = Project.of("shop", f"git@host.example:{rig.remote}")

    async def run(which: Workspaces, name: str) -> tuple[str, set[str]]:
        async with which.open(project, None, name) as workspace:
            (workspace.path / name).write_text("mine")
            return workspace.base, {path.name for path in workspace.path.iterdir()}

    bases, files = zip(*await asyncio.gather(run(workspaces, "a"), run(others, "b"), run(workspaces, "c")), strict=True)
    assert len(set(bases)) == 1
    assert [sorted(names & {"a", "b", "c"}) for names in files] == [["a"], ["b"], ["c"]]
    assert log.read_text() == "x\n"
    rig.clock.advance(60)
    await run(workspaces, "d")
    assert log.read_text() == "x\n" * 2


def _lives(number: int) -> bool:
    """Nobody may have waited for its end yet: that is no life."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - another process's doing has no event
            await asyncio.sleep(0.01)


async def test_a_fetch_that_was_given_up_is_no_fetch(rig: Rig) -> None:
    """Cancelled in the middle: its process is gone, and the next run fetches."""
    started = rig.folder / "started"
    workspaces = _ssh(rig, f'echo $$ > "{started}"; exec sleep 60')
    project = Project.of("shop", f"git@host.example:{rig.remote}")

    async def run() -> None:
        async with workspaces.open(project, None, "a"):
            pass

    first = asyncio.create_task(run())
    await _until(lambda: started.exists() and started.read_text() != "")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await _until(lambda: not _lives(int(started.read_text())))
    _ssh(rig, UPLOAD.format(log=rig.folder / "fetches"))
    await run()


async def test_git_that_is_given_up_while_it_starts_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had started by then is ended with it, and nobody waits for that to end by itself."""
    program, started = tmp_path / "git", tmp_path / "started"
    program.write_text(f'#!/bin/sh\nsleep 60 &\necho $! > "{started}"\nwait\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    running = asyncio.create_task(Git(tmp_path).run("fetch"))
    while not _appears(started, 0.5):  # noqa: ASYNC110 - holds up the loop: its pipes are not connected yet
        await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await running
        await _until(lambda: not _lives(int(started.read_text())))


def _appears(path: Path, within_s: float) -> bool:
    """Whether somebody writes it."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if path.exists() and path.read_text().strip():
            return True
    return False


async def test_a_mirror_that_is_broken_is_made_anew(rig: Rig) -> None:
    """A power cut left empty objects: the run does not notice, unless another still borrows from it."""
    workspaces = rig.workspaces()
    async with workspaces.open(rig.project, None, "run1") as first:
        rig.clock.advance(60)
        for objects in first.read_only:
            for path in [path for path in objects.rglob("*") if path.is_file()]:
                path.chmod(0o644)
                path.write_bytes(b"")
        rig.commit({"more.txt": b"x\n"})
        with pytest.raises(GitFailed):
            async with workspaces.open(rig.project, None, "run2"):
                pass
    async with workspaces.open(rig.project, None, "run2") as second:
        assert (second.path / "more.txt").exists()


async def test_locks_of_a_git_that_was_killed_do_not_stop_the_next(rig: Rig) -> None:
    """`kill -9` leaves git's own lock files and half a pack."""
    workspaces = rig.workspaces()
    async with workspaces.open(rig.project, None, "run1") as first:
        mirror = next(iter(first.read_only)).parent
        for name in ("packed-refs.lock", "refs/heads/main.lock", "HEAD.lock", "config.lock", "objects/pack/tmp_pack_x"):
            (mirror / name).write_bytes(b"")
        (mirror / "same").touch()
    rig.clock.advance(60)
    head = rig.commit({"more.txt": b"x\n"})
    async with workspaces.open(rig.project, None, "run2") as second:
        assert second.base == head
    assert not (mirror / "objects/pack/tmp_pack_x").exists()
    assert (mirror / "same").exists(), "it was made anew, which a large repository takes minutes for"


@pytest.mark.live("small-disks")
async def test_a_full_disk_is_said_and_leaves_nothing(rig: Rig) -> None:
    """In the middle of a clone: no room is retryable, and what was written is gone again."""
    from tests.chaos.disks import Disks

    rig.limits = WorkspaceLimits(reserve_bytes=0, fetch_s=20.0)
    workspaces = None
    with Disks.mounted([rig.node]):
        workspaces = rig.workspaces()
        async with workspaces.open(rig.project, None, "run1"):
            pass
        Disks.fill(rig.node)
        error = await _fails(rig, str(rig.remote), workspaces)
        assert type(error) is DiskFull
        assert isinstance(error, Retryable)
        Disks.relieve(rig.node)
        async with workspaces.open(rig.project, None, "run1"):
            pass
