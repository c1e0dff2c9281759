"""A content-addressed store on disk: payloads over the inline limit, by the SHA-256 of their bytes.

Written aside, synced, then renamed: a blob is whole or absent, and on the disk before the ledger
names it. Storing the same bytes again costs one look. Refuses to know who refers to a blob.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import InvalidCall, NotFound, PayloadTooLarge, Retryable

CHUNK_BYTES = 1 << 20
DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_DIGEST_CHARS = 64
_HEX = frozenset("0123456789abcdef")


class DigestMismatch(InvalidCall):
    """The bytes are not what their name says."""

    code = "digest_mismatch"

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the bytes have the SHA-256 {found}, not {expected}; nothing was stored")


class BlobsDown(Retryable):
    """The disk refuses: it is full, or broken."""

    code = "blobs_down"

    def __init__(self, folder: Path, detail: str) -> None:
        super().__init__(
            f"the blob store {folder} cannot be written ({detail}); free some disk space, call again later"
        )


class DiskBlobs:
    """Blobs under one folder, two hex digits a shelf. Files are readable by their owner only."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._aside = folder, folder / "incoming"
        self._aside.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, data: bytes) -> str:
        """Keep these bytes; their digest. Durable when it returns. Raises BlobsDown."""
        digest = hashlib.sha256(data).hexdigest()
        with self._said():
            await asyncio.to_thread(self._write, digest, data)
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes.

        Raises:
            NotFound: no such blob, or the disk no longer holds what was written.
        """
        data = await asyncio.to_thread(self._path(digest).read_bytes) if await self._has(digest) else None
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise NotFound("blob", digest)
        return data

    async def store(self, digest: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Keep what is streamed, if it is what `digest` says; its number of bytes.

        Raises:
            BlobsDown: the disk refuses.
            DigestMismatch: it is not.
            PayloadTooLarge: more than `limit_bytes`.
        """
        aside, found, size = self._aside / secrets.token_hex(16), hashlib.sha256(), 0
        try:
            with self._said(), await asyncio.to_thread(aside.open, "xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit_bytes:
                        raise PayloadTooLarge("the blob", size, limit_bytes)
                    found.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                if found.hexdigest() != digest:
                    raise DigestMismatch(digest, found.hexdigest())
                await asyncio.to_thread(_sync, file.fileno(), file.flush)
            with self._said():
                await asyncio.to_thread(self._shelve, aside, self._path(digest))
        finally:
            await asyncio.to_thread(aside.unlink, missing_ok=True)
        return size

    async def size_bytes(self, digest: str) -> int:
        """How many bytes it has. Raises NotFound."""
        if not await self._has(digest):
            raise NotFound("blob", digest)
        return (await asyncio.to_thread(self._path(digest).stat)).st_size

    async def stream(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The bytes, a chunk at a time. Raises NotFound."""
        if not await self._has(digest):
            raise NotFound("blob", digest)
        with await asyncio.to_thread(self._path(digest).open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def release(self, digest: str, *, head: bytes) -> bool:
        """Delete what nothing refers to any more, now, if its bytes begin so; whether it was there and did."""
        return await self._has(digest) and await asyncio.to_thread(self._release, self._path(digest), head)

    async def forget(self, *, older_than: float, is_kept: Callable[[str], bool]) -> int:
        """Delete what was last stored before `older_than`, wall clock, and is not kept; how many.

        What is stored again while this looks stays: storing renews a blob's time.
        """
        return await asyncio.to_thread(self._forget, older_than, is_kept)

    def _forget(self, older_than: float, is_kept: Callable[[str], bool]) -> int:
        for draft in self._aside.iterdir():  # of a process that died while it wrote
            if draft.stat().st_mtime < older_than:
                draft.unlink(missing_ok=True)
        blobs = [path for path in self._folder.glob("??/*") if path.stat().st_mtime < older_than]
        return sum(self._condemn(path, older_than) for path in blobs if not is_kept(path.parent.name + path.name))

    def _release(self, path: Path, head: bytes) -> bool:
        with path.open("rb") as file:
            if file.read(len(head)) != head:
                return False
        path.unlink(missing_ok=True)
        return True

    def _condemn(self, path: Path, older_than: float) -> bool:
        """Out of sight first: who stores it from now on writes a new file. Back, if its time was renewed meanwhile."""
        aside = self._aside / secrets.token_hex(16)
        path.replace(aside)
        if aside.stat().st_mtime >= older_than:
            aside.replace(path)
            return False
        aside.unlink()
        return True

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What the disk says, as an error of ours."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_TROUBLE:
                raise  # the caller hung up, for example
            raise BlobsDown(self._folder, os.strerror(error.errno)) from error

    async def _has(self, digest: str) -> bool:
        return await asyncio.to_thread(self._path(digest).is_file)

    def _path(self, digest: str) -> Path:
        if len(digest) != _DIGEST_CHARS or not set(digest) <= _HEX:
            raise NotFound("blob", digest[:80])  # also what keeps a path from leaving the folder
        return self._folder / digest[:2] / digest[2:]

    def _write(self, digest: str, data: bytes) -> None:
        path = self._path(digest)
        if _renewed(path):
            return
        aside = self._aside / secrets.token_hex(16)
        try:
            with aside.open("xb") as file:
                file.write(data)
                _sync(file.fileno(), file.flush)
            self._shelve(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    def _shelve(self, aside: Path, path: Path) -> None:
        aside.chmod(0o600)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        aside.replace(path)
        for folder in (path.parent, self._folder):  # the names themselves must be on the disk too
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _renewed(path: Path) -> bool:
    """It is there; and counts as stored now, so that nobody forgets it before it is referred to."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _sync(handle: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(handle)
