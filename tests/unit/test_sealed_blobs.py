"""Sealed blobs: nothing of them is on the disk in the clear, and a disk that was tampered with is noticed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.blobs.disk import DiskBlobs, SealedAway
from orchestrator.blobs.sealing import CHUNK_BYTES, HEADER_BYTES, TAG_BYTES, size_within
from orchestrator.secrets.keyring import KeyRing, NotAsSealed, kid_of
from orchestrator.testing.secrets import new_ring
from tasks.errors import NotFound

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]


async def parts(data: bytes, size: int) -> AsyncIterator[bytes]:
    """As it comes off the wire."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def the_file(folder: Path) -> Path:
    """The one blob."""
    (path,) = folder.glob("??/*")
    return path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_any_size_comes_back_and_is_not_in_the_clear(tmp_path: Path, size: int, is_streamed: bool) -> None:
    """At the edges of chunks too; the size that is told is the blob's, not the file's."""
    data = secrets.token_bytes(size)
    digest = hashlib.sha256(data).hexdigest()
    blobs = DiskBlobs(tmp_path, new_ring(), seals=True)
    if is_streamed:
        await blobs.store(digest, parts(data, 100_001), limit_bytes=size + 1)
    else:
        assert await blobs.put(data) == digest
    assert await blobs.get(digest) == data
    assert b"".join([chunk async for chunk in blobs.stream(digest)]) == data
    assert await blobs.size_bytes(digest) == size
    on_disk = the_file(tmp_path).read_bytes()
    assert size < 16 or data[:16] not in on_disk
    assert size_within(len(on_disk)) == size


async def test_what_was_cut_moved_or_changed_is_not_given(tmp_path: Path) -> None:
    """Cut off after whole chunks, two chunks swapped, one bit changed: not found, never other bytes."""
    data = secrets.token_bytes(3 * CHUNK_BYTES)
    blobs = DiskBlobs(tmp_path, new_ring(), seals=True)
    digest = await blobs.put(data)
    path, whole = the_file(tmp_path), the_file(tmp_path).read_bytes()
    step, head = CHUNK_BYTES + TAG_BYTES, HEADER_BYTES
    swapped = whole[:head] + whole[head + step : head + 2 * step] + whole[head : head + step] + whole[head + 2 * step :]
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    for bad in (whole[: head + 2 * step], whole[:head], swapped, changed):
        path.write_bytes(bad)
        with pytest.raises(NotFound):
            await blobs.get(digest)
        with pytest.raises(NotFound):
            assert [chunk async for chunk in blobs.stream(digest)]
    path.write_bytes(whole)
    assert await blobs.get(digest) == data


async def test_a_blob_under_another_s_name_does_not_open(tmp_path: Path) -> None:
    """The key is bound to the digest."""
    blobs = DiskBlobs(tmp_path, new_ring(), seals=True)
    digest, other = await blobs.put(b"one"), hashlib.sha256(b"two").hexdigest()
    path = the_file(tmp_path)
    (tmp_path / other[:2]).mkdir(exist_ok=True)
    path.rename(tmp_path / other[:2] / f"{other[2:]}.s")
    with pytest.raises(NotAsSealed):
        await blobs.get(other)
    with pytest.raises(NotFound):
        await blobs.get(digest)


async def test_plain_ones_from_before_are_read_and_sealed_when_they_come_again(tmp_path: Path) -> None:
    """Nothing has to be converted; without keys a sealed one says what is missing."""
    plain = DiskBlobs(tmp_path)
    digest = await plain.put(b"from before")
    sealing = DiskBlobs(tmp_path, new_ring(), seals=True)
    assert await sealing.get(digest) == b"from before"
    await sealing.store(digest, parts(b"from before", 5), limit_bytes=100)
    assert b"from before" not in the_file(tmp_path).read_bytes()
    assert await sealing.get(digest) == b"from before"
    with pytest.raises(SealedAway, match="MCPFLEET_KEY_FILE"):
        await plain.get(digest)


async def test_release_and_forget_know_sealed_ones(tmp_path: Path) -> None:
    """By the beginning of the plain bytes, and by the digest."""
    blobs = DiskBlobs(tmp_path, new_ring(), seals=True)
    digest = await blobs.put(b"capsule: a")
    assert not await blobs.release(digest, head=b"other")
    assert await blobs.forget(older_than=4e9, is_kept=lambda one: one == digest) == 0
    assert await blobs.release(digest, head=b"capsule")
    await blobs.put(b"b")
    assert await blobs.forget(older_than=4e9, is_kept=lambda _: False) == 1


async def test_keys_rotate_in_place(tmp_path: Path) -> None:
    """The header alone is written: the file's size, and its chunks, stay."""
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    digest = await DiskBlobs(tmp_path, KeyRing({"k1": old}, newest="k1"), seals=True).put(b"x" * 1000)
    before = the_file(tmp_path).read_bytes()
    ring = KeyRing({"a-much-longer-name-of-a-key": new, "k1": old}, newest="a-much-longer-name-of-a-key")

    def again(wrapped: str, aad: bytes) -> str | None:
        return None if kid_of(wrapped) == ring.newest else ring.wrap(ring.unwrap(wrapped, aad=aad), aad=aad)

    blobs = DiskBlobs(tmp_path, ring, seals=True)
    assert (await blobs.rewrap(again), await blobs.rewrap(again)) == (1, 0)
    assert the_file(tmp_path).read_bytes()[HEADER_BYTES:] == before[HEADER_BYTES:]
    only = DiskBlobs(tmp_path, KeyRing({ring.newest: new}, newest=ring.newest), seals=True)
    assert await only.get(digest) == b"x" * 1000
