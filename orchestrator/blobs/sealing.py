"""A blob's bytes as a sealed stream: chunks of AES-256-GCM under a key of the blob's own.

    header, HEADER_BYTES long: the wrapped data key, filled up with spaces
    chunk, chunk, …: each CHUNK_BYTES of the blob (the last fewer, or none) and a tag of 16 bytes

A chunk's nonce is its number and whether it is the last, so none can be left out, moved, or cut off at the end.
Source: STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015), as in age (C2SP, age.md, "Payload"). The header is of
one length, so that a new key-encryption key is written over it in place. Owns the form; refuses to touch a disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tasks.errors import NotFound

HEADER_BYTES = 256
CHUNK_BYTES = 1 << 18
TAG_BYTES = 16
KEY_BYTES = 32
_COUNTER_BYTES = 11
_AAD = b"mcpfleet blob\0"


class DataKeys(Protocol):
    """Wraps data keys, and bound to which blob: the key ring."""

    def wrap(self, key: bytes, *, aad: bytes) -> str: ...
    def unwrap(self, wrapped: str, *, aad: bytes) -> bytes: ...


class Sealer:
    """Seals what it is fed: `header`, then what `feed` and `end` answer, in that order."""

    def __init__(self, keys: DataKeys, digest: str) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        self.header = header_of(keys.wrap(key, aad=aad_of(digest)))
        self._cipher, self._kept, self._number = AESGCM(key), bytearray(), 0

    def feed(self, data: bytes) -> bytes:
        """Chunks that are whole now. One is kept back: only `end` knows the last."""
        self._kept += data
        done = bytearray()
        while len(self._kept) > CHUNK_BYTES:
            done += self._seal(bytes(self._kept[:CHUNK_BYTES]), is_last=False)
            del self._kept[:CHUNK_BYTES]
        return bytes(done)

    def end(self) -> bytes:
        """The last chunk."""
        return self._seal(bytes(self._kept), is_last=True)

    def _seal(self, chunk: bytes, *, is_last: bool) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._number, is_last=is_last), chunk, None)
        self._number += 1
        return sealed


def opened(file: BinaryIO, keys: DataKeys, digest: str) -> Iterator[bytes]:
    """A sealed file's plain chunks. Each is authentic when it comes; that none is missing is known at the end.

    Raises:
        NotFound: the disk no longer holds what was written.
        Unopened: its key is not at hand.
    """
    cipher = AESGCM(keys.unwrap(wrapped_in(file.read(HEADER_BYTES)), aad=aad_of(digest)))
    number, chunk = 0, file.read(CHUNK_BYTES + TAG_BYTES)
    while True:
        after = file.read(CHUNK_BYTES + TAG_BYTES)
        try:
            yield cipher.decrypt(_nonce(number, is_last=not after), chunk, None)
        except (InvalidTag, ValueError):
            raise NotFound("blob", digest) from None
        if not after:
            return
        number, chunk = number + 1, after


def size_within(file_bytes: int) -> int:
    """Bytes of the blob in a sealed file of that size."""
    body = file_bytes - HEADER_BYTES
    chunks = -(-body // (CHUNK_BYTES + TAG_BYTES))
    return max(0, body - chunks * TAG_BYTES)


def header_of(wrapped: str) -> bytes:
    """As it stands in the file."""
    text = wrapped.encode().ljust(HEADER_BYTES)
    assert len(text) == HEADER_BYTES, "a kid is at most 32 characters"
    return text


def wrapped_in(header: bytes) -> str:
    """The wrapped key that a header holds."""
    return header.decode("ascii", "replace").rstrip()


def aad_of(digest: str) -> bytes:
    """What binds a key to its blob: a sealed file under another name does not open."""
    return _AAD + digest.encode()


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(_COUNTER_BYTES, "big") + bytes([is_last])
