"""Doctor: certificates, keys and disks that settings name: readable by the right ones, not about to end or to fill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from orchestrator.cli.durations import took
from orchestrator.cli.findings import Finding, Health
from orchestrator.cli.settings import is_private
from tasks.client.settings import MOUNTED

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
CERTIFICATES = ("TLS_CERT", "REDIS_CA", "REDIS_CERT", "VAULT_CA_FILE", "NODE_CA", "NODE_REDIS_CA", "NODE_REDIS_CERT",
                "FLOWER_REDIS_CA", "FLOWER_REDIS_CERT")  # fmt: skip
PRIVATE = ("TLS_KEY", "REDIS_KEY", "NODE_REDIS_KEY", "FLOWER_REDIS_KEY", "KEY_FILE", "TOKEN_FILE", "JOIN_TOKEN_FILE",
           "POOL_SECRET_FILE", "AUDIT_KEY_FILE", "VAULT_TOKEN_FILE", "VAULT_SECRET_ID_FILE", "DATABASE_URL_FILE",
           "REDIS_URL_FILE", "REDIS_URL_FOR_NODES_FILE", "OTLP_HEADERS_FILE", "NODE_OTLP_HEADERS_FILE",
           "NODE_JOIN_TOKEN_FILE", "NODE_ENROL_TOKEN_FILE", "NODE_HTTP_TOKEN_FILE", "FLOWER_LOGIN_FILE",
           "FLOWER_REDIS_URL_FILE")  # fmt: skip
DUE_S = 21 * 86_400.0
FREE_WARN, FREE_FAIL = 2 << 30, 256 << 20
"""Bytes."""
INODES_WARN = 0.05


def check_files(environ: Mapping[str, str], now: float) -> Iterator[Finding]:
    """A finding per file that is named and wrong; one when all are well."""
    named = [name for name in (*CERTIFICATES, *PRIVATE) if environ.get(f"MCPFLEET_{name}")]
    wrong = []
    for name in named:
        path = Path(environ[f"MCPFLEET_{name}"])
        found = certificate(name, path, now) if name in CERTIFICATES else private(name, path)
        wrong += [] if found is None else [found]
    yield from wrong
    if named and not wrong:
        yield Finding(check="files", health=OK, detail=f"{len(named)} certificates and keys, readable and not due")


def certificate(name: str, path: Path, now: float) -> Finding | None:
    """What is wrong with a file of certificates."""
    check, variable = f"certificate {name.lower()}", f"MCPFLEET_{name}"
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        return Finding(check=check, health=FAIL, detail=f"{path}: {error}", mend=f"correct {variable}")
    ends = min(one.not_valid_after_utc for one in chain)
    left_s = ends.timestamp() - now
    if left_s > due_s(chain):
        return None
    if left_s <= 0:
        return Finding(check=check, health=FAIL, detail=f"{path} ended {_day(ends)}", mend=f"renew it ({variable})")
    detail = f"{path} ends in {took(left_s)}, on {_day(ends)}"
    return Finding(check=check, health=WARN, detail=detail, mend=f"renew it ({variable}): docs/rotation.md")


def due_s(chain: Sequence[x509.Certificate]) -> float:
    """Seconds before its end at which to tell: three weeks, or a quarter of what it is good for at all."""
    first = min(chain, key=lambda one: one.not_valid_after_utc)
    return min(DUE_S, (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() / 4)


def private(name: str, path: Path) -> Finding | None:
    """What is wrong with a file that holds a secret."""
    check = f"key {name.lower()}"
    try:
        is_kept = is_private(path) or str(path.absolute()).startswith(MOUNTED)
        path.open("rb").close()
        if is_kept:
            return None
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        return Finding(check=check, health=FAIL, detail=detail, mend=f"correct MCPFLEET_{name}")
    return Finding(check=check, health=WARN, detail=f"others can read {path}", mend=f"chmod 600 {path}")


def check_disks(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Room where the ledger, payloads and journals are. Folders that are not there yet are left out."""
    for what, folder in folders.items():
        if not folder.exists():
            continue
        found = os.statvfs(folder)
        inodes = found.f_favail / found.f_files if found.f_files else 1.0
        yield disk(what, folder, shutil.disk_usage(folder).free, inodes)


def disk(what: str, folder: Path, free: int, inodes: float = 1.0) -> Finding:
    """Room of one folder: bytes, and the share of its inodes that is left (1 where there is no such limit)."""
    if inodes < INODES_WARN and free >= FREE_WARN:
        mend = "many small files: old workspaces (docs/agents.md), or another disk; without one no file can be made"
        detail = f"{inodes:.0%} of its inodes are left at {folder}"
        return Finding(check=f"disk {what}", health=WARN, detail=detail, mend=mend)
    health = FAIL if free < FREE_FAIL else WARN if free < FREE_WARN else OK
    mend = "" if health is OK else "make room: MCPFLEET_RETENTION_DAYS, another disk; a full one stops acceptance"
    return Finding(check=f"disk {what}", health=health, detail=f"{free >> 20} MiB free at {folder}", mend=mend)


def check_blobs(folder: Path) -> Iterator[Finding]:
    """Whether payloads can be kept."""
    if not folder.exists():
        return
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(check="blobs", health=OK, detail=str(folder))
    else:
        mend = f"chown it to the orchestrator's user: {folder}"
        yield Finding(check="blobs", health=FAIL, detail=f"{folder} cannot be written by this user", mend=mend)


def _day(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()
