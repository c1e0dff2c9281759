"""How a replica that passes a connection on says whose it is: before its first byte, under a key of the fleet.

Below TLS, which goes through a replica as it is, and below HTTP. The leader gives a nonce first, so that what was
heard on a wire is good for nothing. PROXY protocol v2 has the same purpose, and nothing that proves who speaks.
Owns these bytes; refuses to know sockets.

    replica: MAGIC
    leader:  MAGIC, 16 bytes that are its nonce
    replica: 16 bytes that name its process, the address (IPv6, 16 bytes), the port (2 bytes),
             HMAC-SHA-256 of the nonce and these
"""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address

MAGIC = b"\0mcpfleet-1\n"
"""No HTTP request and no TLS record begins with a zero."""
NONCE_BYTES = 16
_SAID = struct.Struct("!16s16sH")
FRAME_BYTES = _SAID.size + sha256().digest_size
Address = tuple[str, int]
_UNKNOWN = IPv6Address("::")


class NotIntroduced(Exception):
    """No replica of this fleet says this."""


@dataclass(frozen=True, slots=True)
class PassedOn:
    """Of a connection that came through a replica: who is at its other end. `client` is None where nobody can say."""

    client: Address | None


class Introductions:
    """Both ends, of one process."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: every replica has it, and no node."""
        self._key = hmac.digest(b"mcpfleet relay 1", secret, sha256)
        self._process = os.urandom(16)

    def make(self, peer: object, nonce: bytes) -> bytes:
        """The frame.

        Args:
            peer: as a socket's `getpeername` says; what is no IP address is unknown.
            nonce: the leader's.
        """
        address, port = _read(peer)
        said = _SAID.pack(self._process, address.packed, port)
        return said + self._proof(said, nonce)

    def read(self, frame: bytes, nonce: bytes) -> PassedOn:
        """Who came to the replica.

        Loopback of another process may be another machine's: nobody we know.

        Raises:
            NotIntroduced: whoever made it does not have the fleet's secret, or made it for another connection.
        """
        said, proof = frame[: _SAID.size], frame[_SAID.size :]
        if not hmac.compare_digest(proof, self._proof(said, nonce)):
            raise NotIntroduced("no replica with the secrets of this fleet said so")
        process, packed, port = _SAID.unpack(said)
        address: IPv4Address | IPv6Address = IPv6Address(packed)
        if address == _UNKNOWN:
            return PassedOn(None)
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_loopback and process != self._process:
            return PassedOn(None)
        return PassedOn((str(address), port))

    def _proof(self, said: bytes, nonce: bytes) -> bytes:
        return hmac.digest(self._key, nonce + said, sha256)


def _read(peer: object) -> tuple[IPv6Address, int]:
    if not isinstance(peer, tuple):
        return _UNKNOWN, 0
    try:
        address = ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return _UNKNOWN, 0
    six = IPv6Address(f"::ffff:{address}") if isinstance(address, IPv4Address) else address
    return six, int(peer[1])
