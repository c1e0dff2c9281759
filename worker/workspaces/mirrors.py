"""One bare repository per project: fetched, lent to runs, and removed when nobody has asked for long.

Owns the folder of mirrors and the two locks of each: one for whoever writes to it (exclusive), one for whoever
borrows its objects (shared). Refuses to collect or prune anything: a live clone has no objects of its own, so
objects go only with the whole mirror, and that only while nobody borrows. Nothing secret is written into one:
agents read its objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from tasks.clock import Clock
from worker.workspaces import locks, quota
from worker.workspaces.errors import (
    GitFailed,
    MirrorBusy,
    RepositoryTooLarge,
    UnknownRef,
    explain,
)
from worker.workspaces.git import Allowed, Git, Repository
from worker.workspaces.names import COMMIT_PATTERN, Project, checked_ref
from worker.workspaces.quota import WorkspaceLimits

HEAD = "refs/mcpfleet/HEAD"
"""Where a mirror keeps what the remote's default branch was."""
_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_NO_HEAD = "couldn't find remote ref HEAD"
_LEFT_OVER = ("*.lock", "**/*.lock", "objects/pack/tmp_*", "objects/incoming-*", "objects/tmp_objdir-*")
"""Of a git that was killed: no other git would go on beside them."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Held:
    """A mirror that stays as it is while it is borrowed from, but for new objects."""

    folder: Path
    base: str
    """The commit that the wanted ref is."""


class Mirrors:
    """All of a node's."""

    def __init__(self, root: Path, git: Git, limits: WorkspaceLimits, clock: Clock) -> None:
        self._root, self._git, self._limits, self._clock = root, git, limits, clock

    @contextlib.asynccontextmanager
    async def borrowed(self, project: Project, ref: str | None) -> AsyncIterator[Held]:
        """The project's mirror with `ref` in it; a ref of None is the remote's default branch.

        Raises:
            InvalidRef, UnknownRef, and of `worker/workspaces/errors.py` what can go wrong with a remote.
        """
        wanted = None if ref is None else checked_ref(ref)
        request = _Request(project, wanted, self._clock.wall_s())
        place = _Place.of(self._root, project)
        async with locks.waited_for(place.use_lock, self._limits.fetch_s, shared=True) as use:
            if use is None:
                raise MirrorBusy(project.name, self._limits.fetch_s)
            self._touch(place)
            yield Held(place.repository, await self._resolved(place, request, use))
            self._touch(place)

    def warm(self) -> frozenset[str]:
        """Projects that have a mirror here: a run of them begins sooner."""
        return frozenset(path.name.partition(".")[0] for path in self._root.glob("*.git") if _fetched_at_s(path) > 0)

    async def age_out(self, idle_s: float, is_enough: Callable[[], Awaitable[bool]] | None = None) -> int:
        """Remove those that nobody used for that long and nobody uses now, the longest idle first; how many.

        With `is_enough`, only until it says so.
        """
        idle = {path: self._idle_s(path) for path in self._root.glob("*.git")}
        count = 0
        for path in sorted(idle, key=lambda path: -idle[path]):
            if idle[path] < idle_s or (is_enough is not None and await is_enough()):
                break
            count += await self._discarded(path)
        return count

    async def sweep(self) -> None:
        """What a kill left half removed."""
        for path in self._root.glob("*.gone"):
            await quota.removed(path)

    async def _resolved(self, place: _Place, request: _Request, use: int) -> str:
        ref = request.ref
        if ref is not None and COMMIT_PATTERN.fullmatch(ref) and await self._commit(place, ref):
            return ref  # a commit stays what it is: no remote has to be asked
        was_there = place.repository.exists()
        try:
            await self._refresh(place, request)
        except GitFailed:
            # Not the remote, as far as anybody knows: a power cut, perhaps, left it with empty objects.
            if not was_there or not await self._thrown_away(place, use):
                raise
            await self._refresh(place, request)
        found = await self._commit(place, ref)
        if found is None:
            raise UnknownRef(request.project.remote.url, ref)
        return found

    async def _commit(self, place: _Place, ref: str | None) -> str | None:
        names = (HEAD,) if ref is None else (f"refs/heads/{ref}", f"refs/tags/{ref}", ref)
        if not place.repository.exists():
            return None
        for name in names:
            with contextlib.suppress(GitFailed):
                found = await self._git.run(
                    *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"), at=place.at
                )
                return found.decode().strip()
        return None

    async def _refresh(self, place: _Place, request: _Request) -> None:
        """Fetch, unless a fetch that began late enough is done when the lock is ours."""
        project = request.project
        async with locks.waited_for(place.lock, self._limits.fetch_s) as lock:
            if lock is None:
                raise MirrorBusy(project.name, self._limits.fetch_s)
            began_at_s = self._clock.wall_s()
            if request.asked_at_s - self._limits.fresh_s <= _fetched_at_s(place.repository) <= began_at_s:
                return
            quota.check_free(self._root, self._limits)
            if not place.repository.exists():
                await self._git.run(
                    *("init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", str(place.repository)),
                    allowed=Allowed(locks=(lock,)),
                )
            await self._clean(place.repository)
            await self._watched_fetch(place, project, lock)
            (place.repository / "fetched").write_text(json.dumps(began_at_s))

    async def _watched_fetch(self, place: _Place, project: Project, lock: int) -> None:
        fetch = asyncio.create_task(self._fetch(place, project, lock))
        try:
            while not (await asyncio.wait({fetch}, timeout=self._limits.look_every_s))[0]:
                await self._check_size(place, project)
            fetch.result()
        finally:
            fetch.cancel()
            await asyncio.wait({fetch})
        await self._check_size(place, project)

    async def _fetch(self, place: _Place, project: Project, lock: int) -> None:
        allowed = Allowed(time_s=self._limits.fetch_s, environ=project.remote.environ(), locks=(lock,))
        words = (
            "fetch",
            "--quiet",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--prune",
            "--force",
            "--no-tags",
        )
        try:
            try:
                to = (f"+HEAD:{HEAD}", *_REFS)
                await self._git.run(*words, "--", project.remote.url, *to, at=place.at, allowed=allowed)
            except GitFailed as error:
                if _NO_HEAD not in error.said:
                    raise
                await self._git.run("update-ref", "-d", HEAD, at=place.at)
                await self._git.run(*words, "--", project.remote.url, *_REFS, at=place.at, allowed=allowed)
        except GitFailed as error:
            raise explain(error, project.remote.url) from None

    async def _check_size(self, place: _Place, project: Project) -> None:
        quota.check_free(self._root, self._limits)
        if await quota.used_bytes(place.repository) > self._limits.mirror_bytes:
            raise RepositoryTooLarge(project.remote.url, self._limits.mirror_bytes)

    async def _clean(self, repository: Path) -> None:
        for left in await asyncio.to_thread(_left_over, repository):
            await quota.removed(left)

    async def _thrown_away(self, place: _Place, use: int) -> bool:
        """A broken one. Nobody but us may borrow from it then."""
        if not locks.alone(use):
            return False
        try:
            with locks.taken(place.lock) as lock:
                if lock is None:
                    return False
                _log.warning("mirror_thrown_away", mirror=place.repository.name, why="git cannot work with it")
                return await _removed(place.repository)
        finally:
            if not locks.shared_again(use):
                raise MirrorBusy(place.repository.name, 0.0)

    async def _discarded(self, repository: Path) -> bool:
        with locks.taken(repository.with_suffix(".use")) as use, locks.taken(repository.with_suffix(".lock")) as lock:
            if use is None or lock is None:
                return False
            _log.info("mirror_aged_out", mirror=repository.name)
            return await _removed(repository)

    def _touch(self, place: _Place) -> None:
        now_s = self._clock.wall_s()
        os.utime(place.use_lock, (now_s, now_s))

    def _idle_s(self, repository: Path) -> float:
        try:
            return self._clock.wall_s() - repository.with_suffix(".use").stat().st_mtime
        except FileNotFoundError:
            return 0.0


@dataclass(frozen=True, slots=True)
class _Request:
    """What one run asks for."""

    project: Project
    ref: str | None
    asked_at_s: float


@dataclass(frozen=True, slots=True)
class _Place:
    """One mirror's folder and locks. Another remote of the same project is another mirror."""

    repository: Path
    lock: Path
    use_lock: Path

    @classmethod
    def of(cls, root: Path, project: Project) -> _Place:
        digest = hashlib.sha256(project.remote.url.encode()).hexdigest()[:16]
        repository = root / f"{project.name}.{digest}.git"
        return cls(repository, repository.with_suffix(".lock"), repository.with_suffix(".use"))

    @property
    def at(self) -> Repository:
        return Repository(self.repository)


async def _removed(repository: Path) -> bool:
    """Out of the way in one step; a kill in between is cleaned up at the next start."""
    gone = repository.with_suffix(f".{secrets.token_hex(4)}.gone")
    await asyncio.to_thread(repository.rename, gone)
    return await quota.removed(gone)


def _left_over(repository: Path) -> set[Path]:
    return {path for pattern in _LEFT_OVER for path in repository.glob(pattern)}


def _fetched_at_s(repository: Path) -> float:
    """When the last fetch that succeeded began; 0 where there was none."""
    try:
        return float(json.loads((repository / "fetched").read_text()))
    except (OSError, ValueError, TypeError):
        return 0.0
