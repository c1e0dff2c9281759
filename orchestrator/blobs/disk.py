"""A content-addressed store on disk: payloads over the inline limit, by the SHA-256 of their bytes.

Written aside, synced, then renamed: a blob is whole or absent, and on the disk before the ledger
names it. Storing the same bytes again costs one look. With a key ring they are sealed (`sealing.py`), in files
whose names end in `.s`; plain ones from before stay readable. Refuses to know who refers to a blob.
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
from typing import BinaryIO

from orchestrator.blobs.sealing import (
    HEADER_BYTES,
    DataKeys,
    Sealer,
    aad_of,
    header_of,
    opened,
    size_within,
    wrapped_in,
)
from tasks.errors import InvalidCall, NotFound, PayloadTooLarge, Permanent, Retryable

CHUNK_BYTES = 1 << 20
DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
SEALED = ".s"
_DIGEST_CHARS = 64
_HEX = frozenset("0123456789abcdef")


class DigestMismatch(InvalidCall):
    """The bytes are not what their name says."""

    code = "digest_mismatch"

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the bytes have the SHA-256 {found}, not {expected}; nothing was stored")


class SealedAway(Permanent):
    """It was sealed, and this orchestrator has no keys."""

    code = "unopened"
    http_status = 500

    def __init__(self, digest: str) -> None:
        super().__init__(
            f"the blob {digest} is sealed, and no key file is set; set MCPFLEET_KEY_FILE to the one it was sealed with"
        )


class BlobsDown(Retryable):
    """The disk refuses: it is full, or broken."""

    code = "blobs_down"

    def __init__(self, folder: Path, detail: str) -> None:
        super().__init__(
            f"the blob store {folder} cannot be written ({detail}); free some disk space, call again later"
        )


class DiskBlobs:
    """Blobs under one folder, two hex digits a shelf. Files are readable by their owner only."""

    def __init__(self, folder: Path, keys: DataKeys | None = None, *, seals: bool = False) -> None:
        """Under `folder`. `keys` open what is sealed; `seals`: what is new is sealed, too."""
        self._folder, self._aside = folder, folder / "incoming"
        self._keys, self._seals = keys, seals
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
        path = await self._found(digest)
        data = None if path is None else await asyncio.to_thread(self._read, path, digest)
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
            place, sealer = self._place(digest)
            with self._said(), await asyncio.to_thread(aside.open, "xb") as file:
                file.write(b"" if sealer is None else sealer.header)
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit_bytes:
                        raise PayloadTooLarge("the blob", size, limit_bytes)
                    found.update(chunk)
                    await asyncio.to_thread(_add, file, chunk, sealer)
                await asyncio.to_thread(_finish, file, sealer)
                if found.hexdigest() != digest:
                    raise DigestMismatch(digest, found.hexdigest())
                await asyncio.to_thread(_sync, file.fileno(), file.flush)
            with self._said():
                await asyncio.to_thread(self._shelve, aside, place)
        finally:
            await asyncio.to_thread(aside.unlink, missing_ok=True)
        return size

    async def size_bytes(self, digest: str) -> int:
        """How many bytes it has. Raises NotFound."""
        path = await self._found(digest)
        if path is None:
            raise NotFound("blob", digest)
        size = (await asyncio.to_thread(path.stat)).st_size
        return size_within(size) if path.suffix == SEALED else size

    async def stream(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The bytes, a chunk at a time. Raises NotFound."""
        path = await self._found(digest)
        if path is None:
            raise NotFound("blob", digest)
        with await asyncio.to_thread(path.open, "rb") as file:
            chunks = self._chunks(file, path, digest)
            while chunk := await asyncio.to_thread(next, chunks, b""):
                yield chunk

    async def release(self, digest: str, *, head: bytes) -> bool:
        """Delete what nothing refers to any more, now, if its bytes begin so; whether it was there and did."""
        path = await self._found(digest)
        return path is not None and await asyncio.to_thread(self._release, path, digest, head)

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
        return sum(self._condemn(path, older_than) for path in blobs if not is_kept(_digest_of(path)))

    async def rewrap(self, rewrapped: Callable[[str, bytes], str | None]) -> int:
        """Give each sealed blob's data key to `rewrapped`, with what it is bound to; how many got another wrapping."""
        return await asyncio.to_thread(self._rewrap, rewrapped)

    def _rewrap(self, rewrapped: Callable[[str, bytes], str | None]) -> int:
        changed = 0
        for path in self._folder.glob(f"??/*{SEALED}"):
            with path.open("r+b") as file:
                new = rewrapped(wrapped_in(file.read(HEADER_BYTES)), aad_of(_digest_of(path)))
                if new is not None:
                    file.seek(0)
                    file.write(header_of(new))  # within one sector of the disk: the old one or the new one
                    _sync(file.fileno(), file.flush)
                    changed += 1
        return changed

    def _release(self, path: Path, digest: str, head: bytes) -> bool:
        with path.open("rb") as file:
            if not next(self._chunks(file, path, digest), b"").startswith(head):
                return False
        path.unlink(missing_ok=True)
        return True

    def _read(self, path: Path, digest: str) -> bytes:
        with path.open("rb") as file:
            return b"".join(self._chunks(file, path, digest))

    def _chunks(self, file: BinaryIO, path: Path, digest: str) -> Iterator[bytes]:
        if path.suffix != SEALED:
            return iter(lambda: file.read(CHUNK_BYTES), b"")
        if self._keys is None:
            raise SealedAway(digest)
        return opened(file, self._keys, digest)

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

    async def _found(self, digest: str) -> Path | None:
        return await asyncio.to_thread(self._there, digest)

    def _there(self, digest: str) -> Path | None:
        plain = self._path(digest)
        return next((path for path in (plain.with_suffix(SEALED), plain) if path.is_file()), None)

    def _place(self, digest: str) -> tuple[Path, Sealer | None]:
        """Where it is to be put, and with what."""
        plain = self._path(digest)
        if not self._seals or self._keys is None:
            return plain, None
        return plain.with_suffix(SEALED), Sealer(self._keys, digest)

    def _path(self, digest: str) -> Path:
        if len(digest) != _DIGEST_CHARS or not set(digest) <= _HEX:
            raise NotFound("blob", digest[:80])  # also what keeps a path from leaving the folder
        return self._folder / digest[:2] / digest[2:]

    def _write(self, digest: str, data: bytes) -> None:
        there = self._there(digest)
        if there is not None and _renewed(there):
            return
        path, sealer = self._place(digest)
        aside = self._aside / secrets.token_hex(16)
        try:
            with aside.open("xb") as file:
                file.write(b"" if sealer is None else sealer.header)
                _add(file, data, sealer)
                _finish(file, sealer)
                _sync(file.fileno(), file.flush)
            self._shelve(aside, path)
        finally:
            aside.unlink(missing_ok=True)

    def _shelve(self, aside: Path, path: Path) -> None:
        aside.chmod(0o600)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        aside.replace(path)
        if path.suffix == SEALED:  # one from before, of the same bytes
            path.with_suffix("").unlink(missing_ok=True)
        for folder in (path.parent, self._folder):  # the names themselves must be on the disk too
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _digest_of(path: Path) -> str:
    return path.parent.name + path.name.removesuffix(SEALED)


def _add(file: BinaryIO, data: bytes, sealer: Sealer | None) -> None:
    file.write(data if sealer is None else sealer.feed(data))


def _finish(file: BinaryIO, sealer: Sealer | None) -> None:
    if sealer is not None:
        file.write(sealer.end())


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
