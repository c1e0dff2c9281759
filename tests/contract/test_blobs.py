"""One promise, two stores: the disk's and the fake that tests use."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.blobs.disk import CHUNK_BYTES, DigestMismatch, DiskBlobs
from orchestrator.testing.blobs import MemoryBlobs
from orchestrator.testing.secrets import new_ring
from tasks.errors import NotFound, PayloadTooLarge

Store = DiskBlobs | MemoryBlobs
DATA = b"a result over the inline limit " * 100
DIGEST = hashlib.sha256(DATA).hexdigest()
LIMIT_BYTES = 10 * CHUNK_BYTES


@pytest.fixture(params=["disk", "sealed", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn."""
    if request.param == "memory":
        return MemoryBlobs()
    return DiskBlobs(tmp_path / "blobs", new_ring(), seals=request.param == "sealed")


async def parts(data: bytes, size: int = 700) -> AsyncIterator[bytes]:
    """A body as it comes off the wire."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def collected(store: Store, digest: str) -> bytes:
    """What a stream gives."""
    return b"".join([chunk async for chunk in store.stream(digest)])


async def test_what_was_put_comes_back_under_its_digest(blobs: Store) -> None:
    """The name of a blob is the SHA-256 of its bytes; putting it twice changes nothing."""
    assert await blobs.put(DATA) == DIGEST
    assert await blobs.put(DATA) == DIGEST
    assert await blobs.get(DIGEST) == DATA
    assert await blobs.size_bytes(DIGEST) == len(DATA)
    assert await collected(blobs, DIGEST) == DATA


async def test_a_streamed_blob_is_the_same_blob(blobs: Store) -> None:
    """However it came, it is found by the same name; empty ones too."""
    assert await blobs.store(DIGEST, parts(DATA), limit_bytes=LIMIT_BYTES) == len(DATA)
    assert await blobs.get(DIGEST) == DATA
    empty = hashlib.sha256(b"").hexdigest()
    assert await blobs.store(empty, parts(b""), limit_bytes=LIMIT_BYTES) == 0
    assert await collected(blobs, empty) == b""


async def test_bytes_that_are_not_what_they_say_are_refused(blobs: Store) -> None:
    """A wrong digest stores nothing: one node cannot plant bytes under another's name."""
    wrong = "0" * 64
    with pytest.raises(DigestMismatch):
        await blobs.store(wrong, parts(DATA), limit_bytes=LIMIT_BYTES)
    for digest in (wrong, DIGEST):
        with pytest.raises(NotFound):
            await blobs.get(digest)


async def test_too_many_bytes_are_refused(blobs: Store) -> None:
    """The limit holds while streaming, and nothing stays behind."""
    with pytest.raises(PayloadTooLarge):
        await blobs.store(DIGEST, parts(DATA), limit_bytes=len(DATA) - 1)
    with pytest.raises(NotFound):
        await blobs.size_bytes(DIGEST)


@pytest.mark.parametrize("digest", ["f" * 64, "../../etc/passwd", "", "F" * 64])
async def test_what_is_not_there_is_not_found(blobs: Store, digest: str) -> None:
    """An unknown name, and one that would leave the folder, look the same."""
    with pytest.raises(NotFound):
        await blobs.get(digest)
    with pytest.raises(NotFound):
        await collected(blobs, digest)


async def test_a_broken_stream_leaves_nothing(tmp_path: Path) -> None:
    """A caller that goes away half way leaves no file, neither shelved nor aside."""

    async def breaks() -> AsyncIterator[bytes]:
        yield DATA[:10]
        raise ConnectionResetError

    store = DiskBlobs(tmp_path)
    with pytest.raises(ConnectionResetError):
        await store.store(DIGEST, breaks(), limit_bytes=LIMIT_BYTES)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_bytes_that_rotted_on_disk_are_not_handed_out(tmp_path: Path) -> None:
    """What the disk changed is not found, rather than believed."""
    store = DiskBlobs(tmp_path)
    await store.put(DATA)
    (tmp_path / DIGEST[:2] / DIGEST[2:]).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(NotFound):
        await store.get(DIGEST)


async def test_files_are_private(tmp_path: Path) -> None:
    """Results may hold secrets: only their owner reads them."""
    store = DiskBlobs(tmp_path / "blobs")
    await store.put(DATA)
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "blobs").rglob("*")}
    assert modes == {0}
