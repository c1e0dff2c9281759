"""Doctor: does the ledger's database have the schema that this version writes? Changes nothing in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.cli.checkup_postgres import check_postgres
from orchestrator.cli.findings import Finding, Health
from orchestrator.ledger.schema import VERSION_TABLE
from orchestrator.ledger.tables import SCHEMA
from tasks.errors import LedgerDown

WAL_MAX = 512 << 20
"""Bytes; the orchestrator keeps it far below, unless a reader holds it up."""
LEDGER_MAX = 20 << 30
"""Bytes; SQLite goes on past it, its backups and migrations take long."""
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs",
                     "fuse.s3fs", "fuse.rclone", "lustre", "afs"})  # fmt: skip


class Mounted(Protocol):
    """A file system, as psutil shows it."""

    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...


def schema_of(url: str) -> tuple[str | None, str]:
    """The schema found (None: none at all), and the one wanted.

    Raises:
        LedgerDown: the database does not answer.
    """
    try:
        engine = create_engine(read_only(url))
        try:
            with engine.connect() as connection:
                if not inspect(connection).has_table(VERSION_TABLE):
                    return None, SCHEMA
                found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
                return found, SCHEMA
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError, ImportError) as error:
        detail = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise LedgerDown(detail) from error


def check_ledger(url: str | None, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Findings about the database at `url`; None: none is here."""
    if url is None:
        yield Finding(
            check="ledger", health=Health.SKIP, detail="no database here; the orchestrator's machine can tell"
        )
        return
    try:
        at, head = schema_of(url)
    except LedgerDown as error:
        yield Finding(check="ledger", health=Health.FAIL, detail=error.message, mend="check MCPFLEET_DATABASE_URL")
        return
    if at != head:
        mend = "start the orchestrator: it brings the schema up to date"
        detail = f"schema {at or 'is missing'}, should be {head}"
        yield Finding(check="ledger", health=Health.FAIL, detail=detail, mend=mend)
        return
    yield Finding(check="ledger", health=Health.OK, detail=f"schema {head}")
    path = sqlite_path(url)
    if path is None:
        yield from check_postgres(url, now)
    else:
        yield place(path, kind_of(path, psutil.disk_partitions(all=True)))
        wal = path.with_name(f"{path.name}-wal")
        yield size(path.stat().st_size, wal.stat().st_size if wal.exists() else 0)


def place(path: Path, kind: str) -> Finding:
    """SQLite's locks and its shared memory are not true over a network. Source: sqlite.org/wal.html."""
    if kind not in NETWORK:
        return Finding(check="ledger place", health=Health.OK, detail=f"{path} is on {kind or 'a disk here'}")
    mend = "a disk of this machine, or PostgreSQL: docs/ledger.md"
    detail = f"{path} is on {kind}: two machines, or a cut, damage it"
    return Finding(check="ledger place", health=Health.FAIL, detail=detail, mend=mend)


def kind_of(path: Path, mounted: Iterable[Mounted]) -> str:
    """The file system that a path is on; empty: unknown."""
    where = str(path.absolute())
    over = [one for one in mounted if where.startswith(one.mountpoint.rstrip("/") + "/")]
    return max(over, key=lambda one: len(one.mountpoint)).fstype if over else ""


def size(ledger: int, wal: int) -> Finding:
    """Of SQLite's file and its write-ahead log, bytes."""
    detail = f"{ledger >> 20} MiB, write-ahead log {wal >> 20} MiB"
    if wal > WAL_MAX:
        mend = "something reads for long: end it (a backup, a shell); the orchestrator then empties the log by itself"
        return Finding(check="ledger size", health=Health.WARN, detail=detail, mend=mend)
    if ledger > LEDGER_MAX:
        mend = "MCPFLEET_RETENTION_DAYS, or PostgreSQL: docs/ledger.md"
        return Finding(check="ledger size", health=Health.WARN, detail=detail, mend=mend)
    return Finding(check="ledger size", health=Health.OK, detail=detail)


def sqlite_path(url: str) -> Path | None:
    """SQLite's file; None: another database, or none on disk."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def read_only(url: str) -> str:
    """SQLite makes a missing file unless told not to."""
    path = sqlite_path(url)
    if path is None:
        return url
    return f"sqlite:///file:{path}?mode=ro&uri=true"
