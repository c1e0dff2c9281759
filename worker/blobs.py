"""Payloads over the inline limit: arguments are fetched, results are kept on disk, then uploaded.

A result is a file of this node before its outcome is journaled, and is deleted when the outcome is
settled, so that neither a crash nor an orchestrator that is away loses it. Where the disk has no room it
is brought to the store before its attempt ends. Content-addressed: the name is the SHA-256, checked on
every read. Refuses names that are not one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

import structlog

from tasks.errors import OrchestratorDown
from tasks.outcome import ErrorInfo, Failure
from worker.upstreams.errors import UpstreamError

FETCH_TRIES = 4
RETRY_FIRST_S = 0.25
RETRY_CAP_S = 5.0
_NAME = re.compile(r"[0-9a-f]{64}")
_log = structlog.get_logger()


class BlobDoor(Protocol):
    """The orchestrator's blob store. Both raise OrchestratorDown where asking again may help."""

    async def get_blob(self, sha256: str) -> bytes | None:
        """The bytes, or None where it does not exist."""
        ...

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """Store; the same again is no error."""
        ...


class Blobs:
    """What this node fetches from the store and brings to it."""

    def __init__(self, directory: Path, door: BlobDoor) -> None:
        self._directory = directory
        self._door = door
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def fetch(self, sha256: str, what: str = "the arguments") -> bytes:
        """Arguments that were too large for the delivery, or `what` else it names.

        Raises:
            UpstreamError: NOT_STARTED, when the store does not answer; PERMANENT, when it has not got it.
        """
        data = await self._get(sha256, what)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise UpstreamError(ErrorInfo("blob_missing", f"{what}: {sha256} is not in the store", Failure.PERMANENT))
        return data

    async def keep(self, text: str) -> str:
        """Write a result to this node's disk, or else bring it to the store at once; answers its name."""
        data = text.encode()
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            await asyncio.to_thread(self._write, sha256, data)
        except OSError as error:
            _log.error("result_not_on_disk", sha256=sha256, detail=str(error), effect="it is uploaded at once")
            await self._bring(sha256, lambda: data)
        return sha256

    async def bring(self, data: bytes) -> str:
        """Into the store, tried once; its name.

        Raises:
            OrchestratorDown, NotAllowed, Refused
        """
        sha256 = hashlib.sha256(data).hexdigest()
        await self._door.put_blob(sha256, data)
        return sha256

    async def upload(self, sha256: str) -> None:
        """Bring a kept result to the store, however long that takes. Nothing to do where it is gone."""
        with contextlib.suppress(FileNotFoundError):
            await self._bring(sha256, self._path(sha256).read_bytes)

    async def _bring(self, sha256: str, read: Callable[[], bytes]) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await self._door.put_blob(sha256, await asyncio.to_thread(read))
            except OrchestratorDown as error:
                _log.warning("blob_upload_waits", sha256=sha256, detail=str(error), again_in_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(RETRY_CAP_S, wait_s * 2)
            else:
                return

    def drop(self, sha256: str) -> None:
        """Settled: the store has it."""
        self._path(sha256).unlink(missing_ok=True)

    def drop_all_but(self, wanted: AbstractSet[str]) -> int:
        """At the start: results that a process wrote and died before it journaled them; how many there were."""
        strays = [path for path in self._directory.iterdir() if path.name not in wanted]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    async def _get(self, sha256: str, what: str) -> bytes | None:
        wait_s = RETRY_FIRST_S
        for left in reversed(range(FETCH_TRIES)):
            try:
                return await self._door.get_blob(sha256)
            except OrchestratorDown as error:
                if not left:
                    message = f"{what} could not be fetched: {error}"
                    raise UpstreamError(ErrorInfo("blob_unavailable", message, Failure.NOT_STARTED)) from error
            await asyncio.sleep(wait_s)
            wait_s *= 2
        return None

    def _write(self, sha256: str, data: bytes) -> None:
        path = self._path(sha256)
        if path.exists():
            return
        draft = path.with_suffix(".part")
        try:
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        if not _NAME.fullmatch(sha256):
            raise ValueError(f"not a SHA-256 in hex: {sha256[:80]!r}")
        return self._directory / sha256
