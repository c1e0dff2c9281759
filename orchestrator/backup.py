"""Taking a backup: the ledger as of one moment, then the blobs that it names, then a look at what was written.

The fleet goes on meanwhile. The ledger comes first: a blob is on the disk before a row names it, and is kept for a day
after the last one did, so the copy of the store has whatever the copy of the ledger names. Source: docs/backup.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from orchestrator import backup_folder
from orchestrator.backup_folder import KEYS, LEDGER, MANIFEST, BackupBroken, Manifest
from orchestrator.blobs.copies import Copied, copy_blobs
from orchestrator.ledger import copies
from orchestrator.ledger.postgres_dump import Programs
from tasks.errors import Permanent


class FolderTaken(Permanent):
    """There is something where the backup was to be."""

    code = "folder_taken"

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is there already; name one that is not, with the time in it for example")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to copy, and where to.

    Attributes:
        url: of the ledger.
        blob_dir: of the blobs.
        folder: to be made.
        key_file: to be added; None: it stays out.
        version: of this mcpfleet.
        now: wall clock.
        environ: PATH and the like, for PostgreSQL's programs.
    """

    url: str
    blob_dir: Path
    folder: Path
    key_file: Path | None
    version: str
    now: float
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Moment:
    """The ledger's copy, and what the ledger was when it was made."""

    look: copies.Look
    chain: backup_folder.Chain
    named: frozenset[str]


def take(wanted: Wanted) -> Manifest:
    """Make it; it is whole, and was read again, when this returns. Broken off, it leaves `FOLDER.partial`.

    Raises:
        BackupBroken: what was written is not what was read; or the ledger's audit log is altered.
        FolderTaken: nothing was done.
        LedgerDown, PostgresToolFailed, PostgresToolsMissing: the ledger cannot be read.
    """
    if wanted.folder.exists():
        raise FolderTaken(wanted.folder)
    partial = wanted.folder.with_name(f"{wanted.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    kind = "sqlite" if copies.is_sqlite(wanted.url) else "postgresql"
    path = partial / LEDGER[kind]
    moment = _copy_sqlite(wanted, path) if kind == "sqlite" else _copy_postgresql(wanted, path)
    path.chmod(0o600)
    blobs = copy_blobs(wanted.blob_dir, partial)
    if wanted.key_file is not None:
        shutil.copyfile(wanted.key_file, partial / KEYS)
        (partial / KEYS).chmod(0o600)
    manifest = _manifest(wanted, kind, path, moment, blobs)
    _write(partial / MANIFEST, manifest)
    _, faults = backup_folder.check(partial, wanted.environ)
    if faults := [*moment.chain.faults, *faults]:
        raise BackupBroken(partial, dict.fromkeys(faults))
    partial.rename(wanted.folder)
    return manifest


def _copy_sqlite(wanted: Wanted, path: Path) -> _Moment:
    copies.copy_sqlite(copies.file_of(wanted.url), path)
    with copies.at_one_moment(f"sqlite:///{path}") as connection:
        return _looked(connection)


def _copy_postgresql(wanted: Wanted, path: Path) -> _Moment:
    """pg_dump and our own look share one snapshot, so that rows can be counted against each other."""
    programs = Programs.for_url(wanted.url, wanted.environ)
    with copies.at_one_moment(wanted.url) as connection:
        snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
        programs.save(path, str(snapshot))
        return _looked(connection)


def _looked(connection: Connection) -> _Moment:
    chain = backup_folder.walk(copies.audit_rows(connection))
    return _Moment(copies.look(connection), chain, frozenset(copies.blobs_named(connection)))


def _manifest(wanted: Wanted, kind: str, path: Path, moment: _Moment, blobs: Copied) -> Manifest:
    return Manifest.model_validate(
        {
            "version": wanted.version,
            "taken_at": wanted.now,
            "database": kind,
            "ledger_schema": moment.look.schema,
            "epoch": moment.look.epoch,
            "rows": moment.look.counts,
            "audit_last": moment.chain.last,
            "audit_hash": moment.chain.hash,
            "is_sealed": moment.look.is_sealed,
            "has_keys": wanted.key_file is not None,
            "ledger_sha256": backup_folder.sum_of(path),
            "ledger_bytes": path.stat().st_size,
            "blobs": blobs.files,
            "blobs_bytes": blobs.size_bytes,
            "blobs_missing": len(moment.named - blobs.digests),
        }
    )


def _write(path: Path, manifest: Manifest) -> None:
    with path.open("w") as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
