"""Checkpoints: signed statements that the log had this hash at this row.

Kept elsewhere, they are what a thief of the database cannot rewrite.
Owns their form, and the orchestrator's signing key. Ed25519 (RFC 8032); the key is named by its JWK thumbprint
(RFC 7638, RFC 8037 appendix A.3).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from orchestrator.audit.chain import canonical
from orchestrator.ledger.audit_values import CheckpointRow
from tasks.errors import InvalidCall, SettingsError

PURPOSE = b"mcpfleet audit checkpoint 1\n"
"""Signed in front of every body: a signature made for anything else is none of these."""
Keys = Mapping[str, Ed25519PublicKey]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed.

    Attributes:
        chain: the log's name: `prev` of its first row.
        seq: a row.
        hash: its hash.
        sealed: rows up to this one may be gone; 0: none.
        sealed_hash: the hash of the last of them, which the first row that is left follows; `chain` for none.
        at_us: when, microseconds since the epoch.
        key: of the key that signed.
    """

    chain: str
    seq: int
    hash: str
    sealed: int
    sealed_hash: str
    at_us: int
    key: str


class Signer:
    """The orchestrator's key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key_id = key_id(private.public_key())

    def sign(self, checkpoint: Checkpoint) -> CheckpointRow:
        """As it is kept."""
        body = canonical(asdict(checkpoint))
        signature = base64.b64encode(self._private.sign(PURPOSE + body)).decode()
        return CheckpointRow(checkpoint.seq, checkpoint.sealed, body.decode(), signature)

    def public_pem(self) -> str:
        """To be kept by whoever verifies, away from this machine."""
        return self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def key_id(public: Ed25519PublicKey) -> str:
    """The thumbprint of a public key. Source: RFC 7638, section 3; RFC 8037, appendix A.3."""
    x = base64.urlsafe_b64encode(public.public_bytes_raw()).rstrip(b"=").decode()
    digest = hashlib.sha256(canonical({"crv": "Ed25519", "kty": "OKP", "x": x})).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def signer_at(path: Path) -> Signer:
    """The key in this file, made at the first start. Only its owner can read it.

    Raises:
        SettingsError: the file cannot be made or read, or holds something else.
    """
    try:
        if not path.exists():
            _make(path)
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"the audit log's key {path} cannot be used ({error}); give MCPFLEET_AUDIT_KEY_FILE an Ed25519 key in PEM, "
            "or a path in a folder that this user can write"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(
            f"the audit log's key {path} is not an Ed25519 key; make one: openssl genpkey -algorithm ed25519"
        )
    return Signer(private)


def public_keys(pem: str) -> Keys:
    """Every public key in this text, by its id.

    Raises:
        InvalidCall: none, or one that is not Ed25519.
    """
    found = {}
    end = "-----END PUBLIC KEY-----"
    for part in pem.split(end)[:-1]:
        try:
            key = load_pem_public_key((part.strip() + "\n" + end + "\n").encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidCall(f"this is not a public key in PEM: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidCall("audit logs are signed with Ed25519; this public key is of another kind")
        found[key_id(key)] = key
    if not found:
        raise InvalidCall("there is no public key in PEM here (`mcpfleet audit key` prints it)")
    return found


def checked(row: CheckpointRow, keys: Keys) -> Checkpoint | str:
    """What it states, or why it states nothing."""
    said = stated(row)
    if said is None:
        return "it cannot be read"
    public = keys.get(said.key)
    if public is None:
        return f"it is signed by the key {said.key}, which is none of those given"
    try:
        public.verify(base64.b64decode(row.signature, validate=True), PURPOSE + canonical(asdict(said)))
    except (InvalidSignature, binascii.Error, ValueError):
        return f"its signature is not of the key {said.key}"
    if (row.seq, row.sealed) != (said.seq, said.sealed):
        return "it is filed under another row than it states"
    return said


def stated(row: CheckpointRow) -> Checkpoint | None:
    """What it states, whoever signed it; None for what cannot be read."""
    try:
        return Checkpoint(**_body(row.body_json))
    except (ValueError, TypeError):
        return None


def line_of(row: CheckpointRow) -> str:
    """One line of JSON, as checkpoints are kept elsewhere."""
    return json.dumps({"checkpoint": json.loads(row.body_json), "signature": row.signature}, separators=(",", ":"))


def read_line(line: str) -> CheckpointRow:
    """A line that `line_of` wrote.

    Raises:
        InvalidCall: it is something else.
    """
    try:
        found = json.loads(line)
        body = found["checkpoint"]
        return CheckpointRow(int(body["seq"]), int(body["sealed"]), canonical(body).decode(), str(found["signature"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidCall(f"this line is no checkpoint of an audit log: {line[:80]!r}") from error


def _body(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    kinds = {field.name: (int if field.type == "int" else str) for field in fields(Checkpoint)}
    if set(found) != set(kinds) or any(type(found[name]) is not kind for name, kind in kinds.items()):
        raise ValueError("its fields are not those of a checkpoint")
    return found


def _make(path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    # Replicas share the folder, and in containers all of them have the same process id.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(partial, path)  # another replica may have made it meanwhile: its key stands
    except FileExistsError:
        pass
    finally:
        partial.unlink()
