"""Putting a backup back: into a database where nothing is lost by it, and so that nothing runs twice because of it.

Refuses a ledger that has rows of people's, and one that an orchestrator runs on. What has to change in the rows is
`orchestrator/ledger/new_life.py`; until that is done no orchestrator can lead there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection

from orchestrator import backup_folder
from orchestrator.audit.chain import link
from orchestrator.backup_folder import BackupBroken, Manifest
from orchestrator.blobs.copies import put_blobs_back
from orchestrator.ledger import copies, database, schema
from orchestrator.ledger.audit_values import AuditEntry, AuditHead, AuditRow, Decision, Link
from orchestrator.ledger.errors import SchemaTooNew
from orchestrator.ledger.new_life import NewLife, begin_anew
from orchestrator.ledger.postgres_dump import Programs
from orchestrator.ledger.tables import SCHEMA
from tasks.errors import Permanent

COMMAND = "mcpfleet ledger restore"


class LedgerNotEmpty(Permanent):
    """There is a ledger where the backup was to go."""

    code = "ledger_not_empty"

    def __init__(self, shown: str, lost: Mapping[str, int]) -> None:
        rows = ", ".join(f"{count} in {name}" for name, count in sorted(lost.items())[:3])
        super().__init__(
            f"the ledger at {shown} has rows ({rows}), which a restore would destroy; back it up, then move it away, "
            "or name an empty database"
        )


class FleetRuns(Permanent):
    """An orchestrator leads on it."""

    code = "fleet_runs"

    def __init__(self, shown: str) -> None:
        super().__init__(
            f"an orchestrator runs on the ledger at {shown}; stop every replica, wait for a lease (6 s), "
            "and restore then"
        )


class HalfRestored(Permanent):
    """A restore into it did not come to its end."""

    code = "half_restored"

    def __init__(self, shown: str) -> None:
        super().__init__(f"a restore into {shown} was broken off; run `{COMMAND}` with the same backup again")


class OtherDatabase(Permanent):
    """The backup is of the other kind."""

    code = "other_database"

    def __init__(self, kind: str, shown: str) -> None:
        super().__init__(f"the backup is {kind}'s and {shown} is not; a ledger goes back into the kind it came from")


@dataclass(frozen=True, slots=True)
class Here:
    """A ledger that begins a new life.

    Attributes:
        url: of it.
        is_waiting_run: nothing ran since the moment that it shows.
        now: wall clock.
        by: who does it, for the audit log.
        new_chain: the audit log's name, where it begins here; 64 hex digits.
    """

    url: str
    is_waiting_run: bool
    now: float
    by: str
    new_chain: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to put back, and where to.

    Attributes:
        folder: the backup.
        here: the ledger that it becomes.
        blob_dir: of the blobs.
        environ: PATH and the like, for PostgreSQL's programs.
    """

    folder: Path
    here: Here
    blob_dir: Path
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now."""

    manifest: Manifest
    life: NewLife
    new_blobs: int


def put_back(wanted: Wanted) -> Restored:
    """Check the backup, put it back, and begin a new life on it.

    Raises:
        BackupBroken, NotABackup, OtherDatabase, SchemaTooNew: nothing was touched.
        FleetRuns, LedgerNotEmpty: nothing was touched.
        LedgerDown, PostgresToolFailed: no orchestrator can lead there yet; run it again.
    """
    manifest, faults = backup_folder.check(wanted.folder, wanted.environ)
    if faults:
        raise BackupBroken(wanted.folder, faults)
    if manifest.ledger_schema > SCHEMA or not _is_known(manifest.ledger_schema):
        raise SchemaTooNew(manifest.ledger_schema, SCHEMA)
    is_sqlite, shown = copies.is_sqlite(wanted.here.url), _shown(wanted.here.url)
    if is_sqlite is not (manifest.database == "sqlite"):
        raise OtherDatabase(manifest.database, shown)
    standing = copies.standing(wanted.here.url)
    if standing.is_led:
        raise FleetRuns(shown)
    if standing.lost and not standing.is_half:
        raise LedgerNotEmpty(shown, standing.lost)
    new_blobs = put_blobs_back(wanted.folder, wanted.blob_dir)
    life = _sqlite(wanted, manifest) if is_sqlite else _postgresql(wanted, manifest, replaces=bool(standing.tables))
    return Restored(manifest, life, new_blobs)


def begin_here(here: Here) -> NewLife:
    """Begin a new life on a ledger that something else put back: a machine's or a volume's snapshot, PostgreSQL's own.

    Raises:
        FleetRuns, HalfRestored: nothing was touched.
        LedgerDown: there is no ledger, or it does not answer.
        SchemaTooNew: a newer mcpfleet wrote it.
    """
    with copies.at_one_moment(here.url) as connection:
        epoch = copies.look(connection).epoch
    standing = copies.standing(here.url)
    if standing.is_led:
        raise FleetRuns(_shown(here.url))
    if standing.is_half:  # whose epoch is in the backup only: another one might be older than who forgot to die
        raise HalfRestored(_shown(here.url))
    reason = "put back by other means than this command; what happened meanwhile is not in this log"
    return _anew(here, AuditEntry("ledger.restore", Decision.NOTED, here.by, reason=reason), epoch, is_live=True)


def _sqlite(wanted: Wanted, manifest: Manifest) -> NewLife:
    """Aside, then renamed: there is the whole ledger in its new life, or none."""
    path = copies.file_of(wanted.here.url).absolute()
    aside = path.with_name(f"{path.name}.restoring")
    _remove(aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(wanted.folder / manifest.ledger_name, aside)
    aside.chmod(0o600)
    life = _anew(replace(wanted.here, url=f"sqlite:///{aside}"), _said(manifest, wanted.here.by), manifest.epoch)
    _remove(path)
    aside.replace(path)
    _sync(path)
    _sync(path.parent)
    return life


def _postgresql(wanted: Wanted, manifest: Manifest, *, replaces: bool) -> NewLife:
    archive = wanted.folder / manifest.ledger_name
    Programs.for_url(wanted.here.url, wanted.environ).put_back(archive, replaces=replaces)
    return _anew(wanted.here, _said(manifest, wanted.here.by), manifest.epoch)


def _anew(here: Here, entry: AuditEntry, epoch: int, *, is_live: bool = False) -> NewLife:
    """`is_live`: an orchestrator may reach it, and may have begun to lead since it was looked at."""
    opened = database.connect(here.url, busy_timeout_s=copies.BUSY_S)
    try:
        schema.migrate(opened)
        with opened.engine.connect() as connection, connection.begin():
            if opened.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if is_live and copies.is_led(connection, holds=True):
                raise FleetRuns(_shown(here.url))
            return _changed(connection, here, entry, epoch)
    finally:
        opened.engine.dispose()


def _changed(connection: Connection, here: Here, entry: AuditEntry, epoch: int) -> NewLife:
    def linked(life: NewLife) -> Link:
        numbers = {"doubtful": life.doubtful, "waiting": life.waiting}
        told = replace(entry, details={**entry.details, **numbers})

        def rows(head: AuditHead | None, led: int) -> Sequence[AuditRow]:
            return link([told], head, epoch=led, at_us=round(here.now * 1e6), new_chain=here.new_chain)

        return rows

    return begin_anew(connection, epoch=epoch, at=here.now, link=linked, is_waiting_run=here.is_waiting_run)


def _said(manifest: Manifest, by: str) -> AuditEntry:
    return AuditEntry(
        "ledger.restore",
        Decision.NOTED,
        by,
        target=f"{manifest.database} {manifest.ledger_schema}",
        reason=f"restored from a backup of {_when(manifest.taken_at)}; what happened since then is not in this log",
        details={"taken_at": round(manifest.taken_at), "audit_last": manifest.audit_last},
    )


def _is_known(revision: str) -> bool:
    """Whether there is a migration of that name."""
    versions = files("orchestrator.ledger") / "migrations" / "versions"
    return any(one.name.startswith(f"m{revision}_") for one in versions.iterdir())


def _shown(url: str) -> str:
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
