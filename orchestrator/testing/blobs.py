"""A blob store in memory; tests/contract/test_blobs.py holds it to what the disk does."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

from orchestrator.blobs.disk import DigestMismatch
from tasks.errors import NotFound, PayloadTooLarge


class MemoryBlobs:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        """Keep these bytes; their digest."""
        digest = hashlib.sha256(data).hexdigest()
        self._blobs[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes. Raises NotFound."""
        if digest not in self._blobs:
            raise NotFound("blob", digest[:80])
        return self._blobs[digest]

    async def store(self, digest: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Keep what is streamed, if it is what `digest` says."""
        data = b""
        async for chunk in chunks:
            data += chunk
            if len(data) > limit_bytes:
                raise PayloadTooLarge("the blob", len(data), limit_bytes)
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise DigestMismatch(digest, found)
        self._blobs[digest] = data
        return len(data)

    async def size_bytes(self, digest: str) -> int:
        """How many bytes it has. Raises NotFound."""
        return len(await self.get(digest))

    async def stream(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The bytes, in two chunks. Raises NotFound."""
        data = await self.get(digest)
        half = len(data) // 2
        for chunk in (data[:half], data[half:]):
            if chunk:
                yield chunk
