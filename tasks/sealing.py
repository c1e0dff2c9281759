"""Keeps what passes through the broker secret and whole: deliveries, nodes' events, control entries.

Two hold a node's key, the orchestrator and that incarnation of the node: what opens with it was sealed by the
other one. A pool's key is shared by its nodes, so a late-bound delivery is signed by the orchestrator as well.
Refuses to say what must be sealed: the fleet does, by `SealTerms`. Source: docs/adr/0020-untrusted-broker.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable

import orjson
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tasks.envelope import Delivery, Opened, encode, parse, read_object
from tasks.errors import BadDelivery
from tasks.node import SealTerms

NODE_MARK, POOL_MARK = "n1.", "p1."
"""What the second string of a sealed delivery begins with; a MAC is hex."""
SEALED_FIELD = b"s"
"""Of a sealed stream entry; the plain one's is `ledger_events.FIELD`."""
DELIVERY_GOOD_S = 86_400.0
"""An addressed delivery that took longer is refused: its node disowns it, and it is released again."""
NONCE_BYTES, SIGNATURE_BYTES, KEY_BYTES = 12, 64, 32
_SIGNED = b"mcpfleet late-bound delivery 1\0"


class NotSealedForUs(Exception):
    """It was sealed with another key, for another reader, or was changed."""


def derive(key: bytes, purpose: str) -> bytes:
    """A key for one purpose alone. Source: RFC 5869 section 2.3 (HKDF-Expand, one block of SHA-256)."""
    return hmac.digest(key, f"mcpfleet 1 {purpose}".encode() + b"\x01", hashlib.sha256)


class Box:
    """AES-256-GCM with random nonces, for one purpose and one reader.

    2^32 messages under one key keep the chance of a repeated nonce below 2^-32: 49 days at 1,000 a second,
    and every join makes a new key. Source: NIST SP 800-38D section 8.3.
    """

    def __init__(self, key: bytes, purpose: str, audience: str) -> None:
        self._aead = AESGCM(derive(key, purpose))
        self._bound = f"{purpose}\0{audience}\0".encode()

    def seal(self, plain: bytes, header: bytes = b"") -> bytes:
        """Nonce, then ciphertext with its tag; `header` stays readable and is bound to it."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, self._bound + header)

    def open(self, sealed: bytes, header: bytes = b"") -> bytes:
        """What was sealed.

        Raises:
            NotSealedForUs
        """
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._bound + header)
        except (InvalidTag, ValueError) as error:
            raise NotSealedForUs from error


def signer_of(secret: bytes) -> Ed25519PrivateKey:
    """Signs late-bound deliveries; every replica derives the same one."""
    return Ed25519PrivateKey.from_private_bytes(derive(secret, "signer"))


def public_hex(signer: Ed25519PrivateKey) -> str:
    """As nodes are told it."""
    return signer.public_key().public_bytes_raw().hex()


def terms_id(terms: SealTerms | None) -> str:
    """Names a set of keys without telling any; a node says by it which ones it has."""
    if terms is None:
        return ""
    told = f"{terms.key} {terms.pool_key} {terms.signer} {terms.is_demanded}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def node_box(key: bytes, node: str) -> Box:
    """Deliveries addressed to a node."""
    return Box(key, "delivery", node)


def pool_box(key: bytes, pool: str) -> Box:
    """Late-bound deliveries of a pool."""
    return Box(key, "late-bound delivery", pool)


def events_box(key: bytes, node: str) -> Box:
    """What a node tells."""
    return Box(key, "events", node)


def control_box(key: bytes, node: str) -> Box:
    """What a node is told."""
    return Box(key, "control", node)


def seal_delivery(delivery: Delivery, box: Box, now: float) -> tuple[str, str]:
    """The two task arguments of an addressed delivery: what the broker may read, and what it may not."""
    header = _header(delivery, now, now + DELIVERY_GOOD_S)
    return header.decode(), NODE_MARK + base64.b64encode(box.seal(encode(delivery), header)).decode()


def seal_late(delivery: Delivery, box: Box, signer: Ed25519PrivateKey, now: float) -> tuple[str, str]:
    """The same for any node of a pool. It may wait for any time: the orchestrator refuses an old one's claim."""
    header = _header(delivery, now, None)
    sealed = box.seal(encode(delivery), header)
    signature = signer.sign(_signed(header, sealed))
    return header.decode(), POOL_MARK + base64.b64encode(signature + sealed).decode()


def labelled(body: str, label: object) -> bool:
    """Whether a message's own id is that of the delivery in it."""
    return not isinstance(label, str) or f'"inv":"{label}"' in body


class Opener:
    """A node's end: opens deliveries, and says no to what its fleet would have sealed."""

    def __init__(self, terms: SealTerms, *, node: str, pool: str, wall_s: Callable[[], float]) -> None:
        self.is_demanded = terms.is_demanded
        self._node = node_box(bytes.fromhex(terms.key), node)
        self._pool = pool_box(bytes.fromhex(terms.pool_key), pool)
        self._signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(terms.signer))
        self._wall_s = wall_s

    @staticmethod
    def is_sealed(mac: str) -> bool:
        """By its mark; a plain one has a MAC there."""
        return mac.startswith((NODE_MARK, POOL_MARK))

    def open(self, body: str, mac: str) -> Opened:
        """Open and authenticate; nothing is parsed before.

        Raises:
            BadDelivery: `seal`, `signature`, `expired`, `version`, `form`.
        """
        header = body.encode(errors="surrogatepass")
        try:
            sealed = binascii.a2b_base64(mac[len(NODE_MARK) :], strict_mode=True)
            is_late = mac.startswith(POOL_MARK)
            plain = self._open_late(header, sealed) if is_late else self._node.open(sealed, header)
        except (NotSealedForUs, binascii.Error, ValueError) as error:
            raise BadDelivery("seal") from error
        until = read_object(header).get("exp")
        if until is not None and not isinstance(until, int | float):
            raise BadDelivery("form")
        if until is not None and until < self._wall_s():
            raise BadDelivery("expired")
        opened = parse(plain)
        if (opened.delivery.node is None) is not is_late:
            raise BadDelivery("seal")
        return opened

    def _open_late(self, header: bytes, sealed: bytes) -> bytes:
        signature, sealed = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        plain = self._pool.open(sealed, header)
        try:
            self._signer.verify(signature, _signed(header, sealed))
        except InvalidSignature as error:
            raise BadDelivery("signature") from error
        return plain


def _header(delivery: Delivery, now: float, until: float | None) -> bytes:
    """What the broker sees anyway, by queue and message id; tool, project and tenant are inside."""
    return orjson.dumps(
        {
            "to": delivery.node,
            "inc": delivery.incarnation,
            "inv": delivery.invocation,
            "fence": delivery.fence,
            "iat": now,
            "exp": until,
        }
    )


def _signed(header: bytes, sealed: bytes) -> bytes:
    return _SIGNED + len(header).to_bytes(4) + header + sealed
