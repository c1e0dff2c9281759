"""Envelope encryption: each item under a data key of its own, each data key under a key-encryption key (KEK).

    mcf1.<kid>.<data key, wrapped>.<nonce and ciphertext>     base64url without padding

AES-256-GCM both times (NIST SP 800-38D), nonces drawn. The caller's `aad` says which item this is (whose, its
name, its version) and is bound into both: a row that is copied to another's place does not open. Rotation
needs no item: the newest KEK seals, every KEK of the file opens, and `rewrap` changes the wrapping alone.

Owns the sealed form. Refuses to find keys (`keyfile.py` reads them) and to log anything.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tasks.errors import Permanent, Unopened

KEY_BYTES = 32
NONCE_BYTES = 12
FORM = "mcf1"
KID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PARTS = 4
_DATA_KEY = b"mcpfleet data key\0"


class KeyMissing(Unopened):
    """It was sealed under a KEK that the key file does not have."""

    def __init__(self, kid: str, have: tuple[str, ...]) -> None:
        super().__init__(
            f"this was sealed under the key {kid!r}, and the key file has {', '.join(have)}; put the line of "
            f"{kid!r} back into the file that MCPFLEET_KEY_FILE names (from your backup of it) and restart"
            if have
            else f"this was sealed under the key {kid!r}, and no key file is set; set MCPFLEET_KEY_FILE to the file "
            f"that has the line of {kid!r} (or to your backup of it) and restart"
        )
        self.kid = kid


class NotAsSealed(Unopened):
    """The key is there and does not fit: another key of that name, other bytes, or another item's."""

    def __init__(self, kid: str) -> None:
        super().__init__(
            f"the key {kid!r} does not open this: it was changed, or moved from another row, or the key file has "
            f"another key under that name; compare MCPFLEET_KEY_FILE with its backup, then restore the row"
        )
        self.kid = kid


class NoKeys(Permanent):
    """Nothing can be sealed: no key file was named."""

    code = "no_keys"
    http_status = 409

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs a key to seal it with, and none is set; make one with `mcpfleet secrets new-key FILE`, "
            "set MCPFLEET_KEY_FILE to it, and restart the orchestrator"
        )


class KeyRing:
    """The KEKs of this orchestrator. Threads may share it: nothing in it changes."""

    def __init__(self, keys: Mapping[str, bytes], *, newest: str) -> None:
        """KEKs by kid, each `KEY_BYTES` long; `newest` seals.

        Raises:
            ValueError: a kid or a length is wrong, or `newest` is not among them.
        """
        for kid, key in keys.items():
            if not KID.fullmatch(kid) or len(key) != KEY_BYTES:
                raise ValueError(f"the key {kid[:40]!r} needs a kid of [a-z0-9-] and {KEY_BYTES} bytes")
        if newest not in keys:
            raise ValueError(f"no key {newest!r}")
        self._keks = {kid: AESGCM(key) for kid, key in keys.items()}
        self.newest = newest

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keks)})"

    def __reduce__(self) -> str:
        raise TypeError("a key ring is not pickled: its keys stay in this process")

    @property
    def kids(self) -> tuple[str, ...]:
        """Names of its KEKs."""
        return tuple(self._keks)

    def seal(self, plain: bytes, *, aad: bytes) -> str:
        """Encrypt under a new data key. `aad` is not secret, and has to be the same at `open`."""
        key = secrets.token_bytes(KEY_BYTES)
        return f"{self.wrap(key, aad=aad)}.{_text(_encrypt(AESGCM(key), plain, aad))}"

    def open(self, sealed: str, *, aad: bytes) -> bytes:
        """What was sealed.

        Raises:
            KeyMissing: its KEK is not here.
            NotAsSealed: it is not what was sealed with this `aad`.
        """
        wrapped, _, body = sealed.rpartition(".")
        key = self.unwrap(wrapped, aad=aad)
        try:
            return _decrypt(AESGCM(key), _bytes(body), aad)
        except (InvalidTag, ValueError):
            raise NotAsSealed(kid_of(sealed)) from None

    def rewrap(self, sealed: str, *, aad: bytes) -> str:
        """The same item under the newest KEK; its bytes are not touched. Raises as `open`."""
        wrapped, _, body = sealed.rpartition(".")
        return f"{self.wrap(self.unwrap(wrapped, aad=aad), aad=aad)}.{body}"

    def wrap(self, key: bytes, *, aad: bytes) -> str:
        """A data key under the newest KEK: `mcf1.<kid>.<wrapped>`, for whoever encrypts a stream with it."""
        return f"{FORM}.{self.newest}.{_text(_encrypt(self._keks[self.newest], key, _DATA_KEY + aad))}"

    def unwrap(self, wrapped: str, *, aad: bytes) -> bytes:
        """The data key. Raises as `open`."""
        kid = kid_of(wrapped)
        kek = self._keks.get(kid)
        if kek is None:
            raise KeyMissing(kid, self.kids)
        try:
            return _decrypt(kek, _bytes(wrapped.split(".")[2]), _DATA_KEY + aad)
        except (InvalidTag, ValueError, IndexError):
            raise NotAsSealed(kid) from None


class NoKeyRing:
    """Where no key file is named: what was sealed earlier is not taken for plain text, and nothing is sealed."""

    def seal(self, plain: bytes, *, aad: bytes) -> str:  # noqa: ARG002 - as KeyRing
        """Raises NoKeys."""
        raise NoKeys("this")

    def open(self, sealed: str, *, aad: bytes) -> bytes:  # noqa: ARG002 - as KeyRing
        """Raises KeyMissing."""
        raise KeyMissing(kid_of(sealed), ())


def is_sealed(text: str) -> bool:
    """Whether this is of the sealed form. JSON never is: no JSON text begins with a letter m."""
    return text.startswith(f"{FORM}.")


def kid_of(sealed: str) -> str:
    """The KEK that it was sealed under; "?" where it is not of the form."""
    parts = sealed.split(".", _PARTS - 1)
    return parts[1] if len(parts) >= _PARTS - 1 and parts[0] == FORM and KID.fullmatch(parts[1]) else "?"


def aad_of(*parts: str) -> bytes:
    """Parts as one `aad` that no other parts make: each with its length before it."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def _encrypt(cipher: AESGCM, plain: bytes, aad: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, aad)


def _decrypt(cipher: AESGCM, sealed: bytes, aad: bytes) -> bytes:
    return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if _text(data) != text:
        raise ValueError("not the one way to write these bytes")  # base64 ignores bits at its end
    return data
