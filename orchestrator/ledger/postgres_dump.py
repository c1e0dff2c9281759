"""Copying a PostgreSQL ledger with PostgreSQL's own programs: pg_dump and pg_restore.

The password goes to them by their environment, which only their own user can read, never by an argument. Refuses to
be a database administrator: the database itself is made and dropped by somebody else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from tasks.errors import Permanent, SettingsError

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PGPASSFILE", "PGSERVICEFILE")
OPTIONS = {
    name: f"PG{name.upper()}" for name in ("sslmode", "sslrootcert", "sslcert", "sslkey", "options", "passfile")
} | {"connect_timeout": "PGCONNECT_TIMEOUT", "application_name": "PGAPPNAME", "host": "PGHOST", "port": "PGPORT"}
"""Parameters of a PostgreSQL URL, and the variables that libpq reads them from."""
OURS_ONLY = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
"""Of our own connections; a copy can do without."""
SAID_CHARS = 400
EPOCH_DATA = "TABLE DATA public mcpfleet_epoch "


class PostgresToolsMissing(Permanent):
    """pg_dump and pg_restore are not installed."""

    code = "postgres_tools_missing"

    def __init__(self, program: str) -> None:
        super().__init__(
            f"{program} is not installed on this machine; install PostgreSQL's client programs (Debian: "
            "postgresql-client), of the server's version or newer"
        )


class PostgresToolFailed(Permanent):
    """One of them ended with an error."""

    code = "postgres_tool_failed"

    def __init__(self, program: str, said: str) -> None:
        super().__init__(f"{program} failed: {said or 'it said nothing'}; nothing was kept of it")


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs, for one database."""

    dump: str
    restore: str
    environ: Mapping[str, str]

    @classmethod
    def for_url(cls, url: str, environ: Mapping[str, str]) -> Programs:
        """Those on the PATH, else the newest that Debian has.

        Raises:
            PostgresToolsMissing: there are none.
            SettingsError: the URL has a parameter that they cannot be told.
        """
        return cls(_found("pg_dump", environ), _found("pg_restore", environ), _variables(url, environ))

    def save(self, target: Path, snapshot: str) -> None:
        """Everything as of that snapshot, in PostgreSQL's custom form. Raises PostgresToolFailed."""
        words = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}", f"--file={target}"]
        self._run(self.dump, *words)

    def rows_in(self, archive: Path) -> dict[str, int]:
        """Rows by table, counted by reading all of the archive; no server is asked. Raises PostgresToolFailed."""
        found: dict[str, int] = {}
        table = None
        with self._reading(archive) as lines:
            for line in lines:
                if table is None and line.startswith(b"COPY "):
                    table = line.split()[1].decode().removeprefix("public.")
                    found[table] = 0
                elif table is not None and line == b"\\.\n":
                    table = None
                elif table is not None:
                    found[table] += 1
        return found

    def put_back(self, archive: Path, *, replaces: bool) -> None:
        """All of it but who leads, in one transaction: until that row is there, no orchestrator can lead.

        Args:
            archive: that `save` wrote.
            replaces: the database has tables of ours, without rows that matter; they go.

        Raises:
            PostgresToolFailed: the database is as it was.
        """
        contents = self._run(self.restore, "--list", str(archive)).decode()
        with tempfile.NamedTemporaryFile("w", prefix="mcpfleet-", suffix=".list") as wanted:
            wanted.write("\n".join(line for line in contents.splitlines() if EPOCH_DATA not in line) + "\n")
            wanted.flush()
            words = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
            words += ["--clean", "--if-exists"] if replaces else []
            place = f"--dbname={self.environ['PGDATABASE']}"
            self._run(self.restore, *words, f"--use-list={wanted.name}", place, str(archive))

    def _run(self, *command: str) -> bytes:
        done = subprocess.run(
            command, env=dict(self.environ), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            raise PostgresToolFailed(Path(command[0]).name, _words(done.stderr))
        return done.stdout

    @contextmanager
    def _reading(self, archive: Path) -> Iterator[Iterator[bytes]]:
        command = [self.restore, "--data-only", "--file=-", str(archive)]
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                command, env=dict(self.environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            ) as process,
        ):
            assert process.stdout is not None
            yield iter(process.stdout)
            if process.wait():
                said.seek(0)
                raise PostgresToolFailed("pg_restore", _words(said.read()))


def _words(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:SAID_CHARS]


def _found(program: str, environ: Mapping[str, str]) -> str:
    on_path = shutil.which(program, path=environ.get("PATH", os.defpath))
    wrapper = on_path is not None and Path(on_path).resolve().name == "pg_wrapper"
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda p: _version(p.parts[-3]))
    if debian and (on_path is None or wrapper):  # the wrapper chooses by a cluster of this machine
        return str(debian[-1])
    if on_path is None:
        raise PostgresToolsMissing(program)
    return on_path


def _version(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _variables(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    parsed = make_url(url)
    found = {name: environ[name] for name in PASSED_ON if name in environ}
    own = {
        "PGHOST": parsed.host,
        "PGPORT": None if parsed.port is None else str(parsed.port),
        "PGUSER": parsed.username,
        "PGPASSWORD": None if parsed.password is None else str(parsed.password),
        "PGDATABASE": parsed.database,
    }
    found |= {name: value for name, value in own.items() if value}
    for name, value in parsed.query.items():
        if name in OURS_ONLY:
            continue
        if name not in OPTIONS or not isinstance(value, str):
            raise SettingsError(f"pg_dump cannot be told {name!r} of MCPFLEET_DATABASE_URL; leave it out for a backup")
        found[OPTIONS[name]] = value
    return found | {"PGDATABASE": found.get("PGDATABASE", found.get("PGUSER", "postgres"))}
