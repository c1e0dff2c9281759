"""A backup is a folder: the ledger's copy, blobs, and a manifest that is written last. What is in it, and is it whole?

Owns the manifest's form and the names in the folder; refuses a folder without one, which is a backup that was broken
off. Nothing in it is a secret but what `mcpfleet ledger backup --with-key-file` adds: sealed rows and blobs stay
sealed, the pool secret and tokens are in no ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.audit.chain import hash_of
from orchestrator.blobs.copies import broken_blobs
from orchestrator.ledger import copies
from orchestrator.ledger.audit_values import AuditRow
from orchestrator.ledger.postgres_dump import Programs
from tasks.errors import Permanent

MANIFEST = "manifest.json"
KEYS = "keys"
LEDGER = {"sqlite": "ledger.db", "postgresql": "ledger.pgdump"}
SHOWN = 5


class NotABackup(Permanent):
    """The folder is not one."""

    code = "not_a_backup"

    def __init__(self, folder: Path, detail: str) -> None:
        super().__init__(
            f"{folder} is no backup that can be used ({detail}); name a folder that `mcpfleet ledger backup` made"
        )


class BackupBroken(Permanent):
    """It is not what was written."""

    code = "backup_broken"

    def __init__(self, folder: Path, faults: Iterable[str]) -> None:
        super().__init__(f"the backup {folder} is not what was written: {'; '.join(faults)}; use another one")


class Manifest(BaseModel):
    """What a backup says of itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    form: Literal[1] = 1
    version: str
    """Of the mcpfleet that made it."""
    taken_at: float
    """Wall clock, seconds since the epoch."""
    database: Literal["sqlite", "postgresql"]
    ledger_schema: str
    epoch: int
    rows: dict[str, int]
    """By table."""
    audit_last: int = 0
    """The audit log's newest row."""
    audit_hash: str = ""
    is_sealed: bool
    """Something in it opens with the key file only."""
    has_keys: bool = False
    """That key file is in the folder."""
    ledger_sha256: str
    ledger_bytes: int = Field(ge=0)
    blobs: int = Field(ge=0)
    blobs_bytes: int = Field(ge=0)
    blobs_missing: int = Field(default=0, ge=0)
    """Named by rows, and not in the store: they were erased, or lost before this."""

    @property
    def ledger_name(self) -> str:
        """Of its file."""
        return LEDGER[self.database]


@dataclass(frozen=True, slots=True)
class Chain:
    """The audit log, once through."""

    last: int
    hash: str
    faults: tuple[str, ...]


def read(folder: Path) -> Manifest:
    """Raises NotABackup."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise NotABackup(folder, f"its {MANIFEST} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise NotABackup(folder, f"its {MANIFEST} has another form: {error.errors()[0]['msg']}") from error


def check(folder: Path, environ: Mapping[str, str]) -> tuple[Manifest, list[str]]:
    """Every byte against the manifest, every row counted, the audit log's chain; what is wrong.

    Raises:
        NotABackup: there is nothing to check.
        PostgresToolsMissing: it is PostgreSQL's, and cannot be read without its programs.
    """
    manifest = read(folder)
    path, faults = folder / manifest.ledger_name, []
    if not path.is_file():
        return manifest, [f"{path.name} is not there"]
    if sum_of(path) != manifest.ledger_sha256:
        return manifest, [f"{path.name} was changed after it was written, or its disk forgot"]
    faults += _ledger_faults(manifest, path, environ)
    known, broken = broken_blobs(folder)
    if known != manifest.blobs:
        faults.append(f"{known} blobs are listed, {manifest.blobs} were copied")
    if broken:
        faults.append(f"{len(broken)} blobs are not what was copied, {', '.join(broken[:SHOWN])} for one")
    if manifest.has_keys and not (folder / KEYS).is_file():
        faults.append("its key file is not there")
    return manifest, faults


def _ledger_faults(manifest: Manifest, path: Path, environ: Mapping[str, str]) -> list[str]:
    if manifest.database == "postgresql":
        return differing(manifest.rows, Programs.for_url("postgresql+psycopg:///", environ).rows_in(path))
    if found := copies.damage(path):
        return [f"{path.name} is damaged: {found}"]
    with copies.at_one_moment(f"sqlite:///{path}") as connection:
        chain = walk(copies.audit_rows(connection))
        faults = [*differing(manifest.rows, copies.look(connection).counts), *chain.faults]
    if (chain.last, chain.hash) != (manifest.audit_last, manifest.audit_hash):
        faults.append(f"its audit log ends at row {chain.last}, and ended at {manifest.audit_last}")
    return faults


def differing(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Tables whose rows are not as many as they were."""
    return [
        f"{name} has {found.get(name, 0)} rows, and had {count}"
        for name, count in sorted(wanted.items())
        if found.get(name, 0) != count
    ]


def walk(rows: Iterable[AuditRow]) -> Chain:
    """Does each row follow from the one before? Signatures are `mcpfleet audit verify`'s."""
    before: AuditRow | None = None
    faults: list[str] = []
    for row in rows:
        follows = before is None or (row.seq == before.seq + 1 and row.prev == before.hash)
        if not (follows and hash_of(row) == row.hash) and len(faults) < SHOWN:
            faults.append(f"the audit log is altered at row {row.seq}")
        before = row
    return Chain(0, "", ()) if before is None else Chain(before.seq, before.hash, tuple(faults))


def sum_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
