"""A PostgreSQL cluster of a test's own: made, started, hurt, thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import connect

STARTS_WITHIN_S = 30


def postgres_bin() -> Path | None:
    """The folder of `initdb` and `postgres`, newest first; Debian keeps it off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _somebody() -> str | None:
    """PostgreSQL refuses to run as root: its own user, or nobody. None: stay who we are."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


@dataclass
class Cluster:
    """In one folder, on a free loopback port, without passwords."""

    programs: Path
    folder: Path
    user: str | None = field(default_factory=_somebody)

    def __post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Of its first database."""
        return f"postgresql://fleet@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        """Once."""
        if self.user:
            shutil.chown(self.folder, self.user)
        self._run("initdb", "-U", "fleet", "-A", "trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        """Until it takes connections."""
        options = f"-p {self._port} -h 127.0.0.1 -k {self.folder} -c fsync=off -c max_connections=200"
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", str(STARTS_WITHIN_S), "-l", log, "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is a crash: whatever was being committed is recovered at the next start."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def cut(self) -> None:
        """End every connection."""
        with connect(self.url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.folder / "cluster"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, user=self.user)
