"""The chain: how one row of the audit log follows from the one before.

Pure. A row's hash is SHA-256 (FIPS 180-4) over the canonical JSON of all its other fields, among them the hash of
the row before (`prev`). The first row's `prev` is random and names the log (`chain`). Canonical is RFC 8785
for what rows consist of: ASCII names in order, whole numbers, strings without lone surrogates, no blanks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter

from orchestrator.ledger.audit_values import AuditEntry, AuditHead, AuditRow, Detail

TEXT_CHARS_MAX = 256
"""Of each text of a row: names, addresses and reasons are shorter; nobody fills the disk with one."""
DETAILS_MAX = 12
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_HASHED = tuple(sorted(field.name for field in fields(AuditRow) if field.name != "hash"))
_VALUES = attrgetter(*_HASHED)


def canonical(value: Mapping[str, object]) -> bytes:
    """The one form of these bytes. Source: RFC 8785, section 3.2."""
    return _ENCODER.encode(value).encode()


def hash_of(row: AuditRow) -> str:
    """What this row's `hash` must be, in hex: 12 µs, for a log has a million rows."""
    return hashlib.sha256(canonical(dict(zip(_HASHED, _VALUES(row), strict=True)))).hexdigest()


def link(
    entries: Sequence[AuditEntry], head: AuditHead | None, *, epoch: int, at_us: int, new_chain: str
) -> list[AuditRow]:
    """The rows of these entries, in order.

    Args:
        entries: as they were told.
        head: the newest row; None begins a log.
        epoch: of the leader that writes.
        at_us: now, microseconds since the epoch.
        new_chain: the name of the log, where it begins; 64 hex digits.
    """
    seq, prev = (0, new_chain) if head is None else (head.seq, head.hash)
    rows = []
    for entry in entries:
        seq += 1
        row = _row(entry, seq, prev, epoch, at_us)
        row = replace(row, hash=hash_of(row))
        prev = row.hash
        rows.append(row)
    return rows


def clean(text: str) -> str:
    """Text that every database keeps and every reader may print: short, without control characters."""
    cut = text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"
    return "".join(char if char.isprintable() else "�" for char in cut)


def _row(entry: AuditEntry, seq: int, prev: str, epoch: int, at_us: int) -> AuditRow:
    details = {clean(name): _detail(value) for name, value in list(entry.details.items())[:DETAILS_MAX]}
    return AuditRow(
        seq=seq,
        at_us=at_us,
        epoch=epoch,
        tenant=clean(entry.tenant),
        actor=clean(entry.actor),
        credential=clean(entry.credential),
        peer=clean(entry.peer),
        action=clean(entry.action),
        target=clean(entry.target),
        decision=entry.decision.value,
        reason=clean(entry.reason),
        trace_id=clean(entry.trace_id),
        details_json=canonical(details).decode(),
        prev=prev,
        hash="",
    )


def _detail(value: Detail) -> Detail:
    return clean(value) if isinstance(value, str) else value
