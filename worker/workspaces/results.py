"""What a run made of its files: a patch, a branch on the remote, single files.

Owns every look of the host at files that an agent has written. The agent may have written anything: into
`.git/config` (monitors, differs, filters, aliases, ssh commands), `.gitattributes`, hooks, its object store
(others' objects by `alternates`), repositories within folders, and symlinks to anywhere. So nothing in its
`.git` is read. Git is run with a repository of the host's own, whose index was made before the agent came, and
by plumbing alone: `git add` and `git status` start a git inside of nested repositories, by their own
configuration; the commands here do not. Refuses to follow a symlink.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.workspaces.alive import Copies
from worker.workspaces.clones import Clone
from worker.workspaces.errors import (
    ArtifactTooLarge,
    GitFailed,
    OutsideWorkspace,
    PatchTooLarge,
    PushRefused,
    explain,
)
from worker.workspaces.git import Allowed, Git, Repository, TooMuchOutput
from worker.workspaces.names import Remote, checked_ref

_SAFE = ("--no-ext-diff", "--no-textconv", "--ignore-submodules=all", "--no-renames")
_NAMES_MAX = 20
_WHO = {"GIT_AUTHOR_NAME": "agent", "GIT_AUTHOR_EMAIL": "agent@localhost"}
_COMMITTER = {"GIT_COMMITTER_NAME": "mcpfleet", "GIT_COMMITTER_EMAIL": "mcpfleet@localhost"}
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patch:
    """Against `base`, for `git apply`: also of untracked files, and of binary ones."""

    data: bytes
    base: str
    files: int
    links_out: tuple[str, ...] = ()
    """Symlinks in it that lead out of the repository, for whoever applies it to see."""
    nested: tuple[str, ...] = ()
    """Folders that are repositories of their own: not in it."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """A branch on the remote with one commit of the run's files on top of its base."""

    branch: str
    commit: str


@dataclass(frozen=True, slots=True)
class _Change:
    """The files as they are now."""

    tree: str
    files: int
    links_out: tuple[str, ...]
    nested: tuple[str, ...]


class Results:
    """Of one run. Ask when its agent is gone, for all but `patch_alive`: until then git may be led astray."""

    def __init__(self, clone: Clone, git: Git) -> None:
        self._clone, self._git = clone, git
        self._one_by_one = asyncio.Lock()

    async def patch(self, limit_bytes: int) -> Patch:
        """Everything that changed since the base, whether the agent committed it or not; ignored files not.

        Raises:
            PatchTooLarge: it is over the limit.
        """
        return await self._patch(await self._change(self._add), limit_bytes)

    async def _patch(self, change: _Change, limit_bytes: int) -> Patch:
        words = ("diff-tree", "-p", "-r", "--binary", "--full-index", "--no-color", *_SAFE)
        try:
            data = await self._git.run(
                *(*words, "--src-prefix=a/", "--dst-prefix=b/", self._clone.base, change.tree, "--"),
                at=Repository(self._clone.host),
                allowed=Allowed(out_bytes=limit_bytes),
            )
        except TooMuchOutput:
            raise PatchTooLarge(limit_bytes) from None
        return Patch(data, self._clone.base, change.files, change.links_out, change.nested)

    async def patch_alive(self, limit_bytes: int) -> Patch:
        """The same while the agent lives, and may exchange any file or folder for a link at any moment.

        Raises:
            PatchTooLarge: it is over the limit, or what changed is over several times that.
        """
        copies = Copies(self._clone.work, self._clone.host / "alive", self._git, limit_bytes)
        return await self._patch(await self._change(copies.add), limit_bytes)

    async def push(self, remote: Remote, branch: str | None, message: str, limit_s: float) -> Pushed | None:
        """The same as one commit, pushed as a new branch or on top of one; None where nothing changed.

        The agent's own commits are not: they would have to be read from a repository that it could write to.

        Raises:
            InvalidRef: git does not allow that name.
            PushRefused: the remote says no; and what else can go wrong with a remote.
        """
        name = checked_ref(branch or self._clone.branch, "branch")
        change = await self._change(self._add)
        at, base = Repository(self._clone.host), self._clone.base
        if change.tree == (await self._git.run("rev-parse", f"{base}^{{tree}}", at=at)).decode().strip():
            return None
        made = await self._git.run(
            *("commit-tree", "-p", base, change.tree),
            at=at,
            given=message.replace("\0", "").encode(errors="replace"),
            allowed=Allowed(environ=_WHO | _COMMITTER),
        )
        commit = made.decode().strip()
        try:
            await self._git.run(
                *("push", "--porcelain", "--no-verify", "--", remote.url, f"{commit}:refs/heads/{name}"),
                at=at,
                allowed=Allowed(time_s=limit_s, environ=remote.environ()),
            )
        except GitFailed as error:
            if "failed to push some refs" in error.said:
                raise PushRefused(remote.url, name, error) from None
            raise explain(error, remote.url) from None
        return Pushed(name, commit)

    async def artifact(self, path: str, limit_bytes: int) -> bytes:
        """One file of the workspace.

        Raises:
            OutsideWorkspace: it leads out, goes through a symlink, or is no file.
            ArtifactTooLarge: it is over the limit.
        """
        return await asyncio.to_thread(_read, self._clone.work, path, limit_bytes)

    async def _add(self, at: Repository, names: Sequence[bytes]) -> None:
        words = ("update-index", "-z", "--add", "--replace", "--stdin")
        await self._git.run(*words, at=at, given=b"".join(name + b"\0" for name in names))

    async def _change(self, add: Callable[[Repository, Sequence[bytes]], Awaitable[None]]) -> _Change:
        async with self._one_by_one:
            index = self._clone.host / "index.now"
            index.with_name("index.now.lock").unlink(missing_ok=True)  # of a git that was ended in the middle
            shutil.copy2(self._clone.host / "index", index)
            at = Repository(self._clone.host, self._clone.work, index)
            gone, changed = self._sorted(await self._git.run("diff-files", "-z", "--name-status", *_SAFE, at=at))
            if gone:  # first: a file can have become a folder, or a folder a symlink
                await self._git.run("update-index", "-z", "--index-info", at=at, given=_removals(gone))
            others = _names(await self._git.run("ls-files", "-z", "--others", "--exclude-standard", at=at))
            nested = [name for name in others if name.endswith(b"/")]
            changed += [name for name in others if not name.endswith(b"/")]
            await add(at, changed)
            tree = (await self._git.run("write-tree", at=at)).decode().strip()
            return _Change(tree, len({*gone, *changed}), _shown(self._links_out(changed)), _shown(nested))

    def _sorted(self, said: bytes) -> tuple[list[bytes], list[bytes]]:
        """Of tracked files, those that are gone and those to look at."""
        words = _names(said)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        gone = [name for status, name in pairs if status == b"D" or self._is_folder(name)]
        return gone, sorted({name for _, name in pairs} - set(gone))

    def _is_folder(self, name: bytes) -> bool:
        """A file that became a repository of its own: git would take it for a submodule."""
        return stat.S_ISDIR(os.lstat(os.fsencode(self._clone.work) + b"/" + name).st_mode)

    def _links_out(self, names: Iterable[bytes]) -> list[bytes]:
        return [name for name in names if _leads_out(self._clone.work, Path(os.fsdecode(name)))]


def _leads_out(work: Path, name: Path) -> bool:
    """By its words alone: where it really leads may change before anybody looks."""
    try:
        target = (work / name).readlink()
    except OSError:
        return False
    return target.is_absolute() or os.path.normpath(name.parent / target).split("/", 1)[0] == ".."


def _names(said: bytes) -> list[bytes]:
    return said.split(b"\0")[:-1]


def _removals(names: Iterable[bytes]) -> bytes:
    return b"".join(b"0 " + b"0" * 40 + b"\t" + name + b"\0" for name in names)


def _shown(names: list[bytes]) -> tuple[str, ...]:
    return tuple(name.decode(errors="replace") for name in names[:_NAMES_MAX])


def _read(work: Path, path: str, limit_bytes: int) -> bytes:
    """Folder by folder, each opened within the one before: no symlink is followed, also not one made meanwhile."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise OutsideWorkspace(path, "it is not a plain path below the workspace")
    at = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = inner
        # NONBLOCK: a pipe would keep us waiting for a writer.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        raise OutsideWorkspace(path, f"it is not there, or a symlink is in the way ({error.strerror})") from None
    finally:
        os.close(at)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OutsideWorkspace(path, "it is no file")
        with os.fdopen(file, "rb", closefd=False) as opened:
            data = opened.read(limit_bytes + 1)
    finally:
        os.close(file)
    if len(data) > limit_bytes:
        raise ArtifactTooLarge(path, max(status.st_size, len(data)), limit_bytes)
    return data
