"""What is known of the machines of one state directory, on disk, so that any orchestrator of this host finds them.

Owns the records and the lock over them; a machine's folder holds its record, its overlay and its console.
Refuses to say whether a machine runs: that is asked of the kernel (`host.py`).
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from base64 import b32encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.autoscaler.cloud.nspawn.waiting import until

RECORD = "record.json"
OWNER = "owner"
LOCK = "lock"
OWNER_CHARS = 4
CLAIM_CHARS = 8
LOCK_WITHIN_S = 20.0


class Record(BaseModel):
    """One machine.

    Attributes:
        booted_at: when its first process was there; None: `create` has not come so far.
        is_ending: it was terminated; nobody boots it again.
        notice_at: wall clock at which it will be taken away; None: it will not.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    id: str
    claim: str
    name: str
    cluster: str
    pool: str
    type: str
    image: Path
    address: str
    is_spot: bool = False
    created_at: float = 0.0
    expires_at: float = 0.0
    booted_at: float | None = None
    is_ending: bool = False
    notice_at: float | None = None


class Records:
    """The records of one folder. Its `owner` is part of every name that a machine has in the kernel."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._machines = state_dir / "machines"

    @property
    def owner(self) -> str:
        """Four characters, drawn once for this folder: tells its machines from those of another."""
        path = self._state_dir / OWNER
        try:
            return path.read_text()
        except FileNotFoundError:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            drawn = b32encode(secrets.token_bytes(5)).decode().lower()[:OWNER_CHARS]
            _write(path, drawn, is_new=True)
            return path.read_text()

    def id_of(self, cluster: str, claim: str) -> str:
        """The same for the same claim, always: 12 characters of a-z and 2-7."""
        digest = hashlib.sha256(f"{self.owner}\0{cluster}\0{claim}".encode()).digest()
        return self.owner + b32encode(digest).decode().lower()[:CLAIM_CHARS]

    def folder(self, machine_id: str) -> Path:
        """Of one machine."""
        return self._machines / machine_id

    def all(self) -> list[Record]:
        """Every machine that is not gone."""
        found = (self.get(folder.name) for folder in sorted(self._machines.glob("*")))
        return [record for record in found if record is not None]

    def strays(self) -> list[str]:
        """Folders without a record: what was being made or removed when its orchestrator was killed."""
        return [folder.name for folder in self._machines.glob("*") if not (folder / RECORD).exists()]

    def get(self, machine_id: str) -> Record | None:
        """One, or None."""
        path = self.folder(machine_id) / RECORD
        try:
            return Record.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError as error:
            raise OSError(f"{path} cannot be read as a machine's record: {error}") from error

    def put(self, record: Record) -> None:
        """Whole or not at all."""
        folder = self.folder(record.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / RECORD, record.model_dump_json())

    async def drop(self, machine_id: str) -> None:
        """The folder and all in it; the record first, so that what is half removed is a stray."""
        folder = self.folder(machine_id)
        (folder / RECORD).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if folder.exists():
            raise OSError(f"{folder} could not be removed")

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """One writer at a time, of all processes of this host. The kernel drops the lock when its holder dies.

        Raises:
            OSError: somebody has had it for `LOCK_WITHIN_S`.
        """
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not await until(lambda: _took(descriptor), LOCK_WITHIN_S):
                raise OSError(f"another process has held the lock of {self._state_dir} for {LOCK_WITHIN_S:g} s")
            yield
        finally:
            os.close(descriptor)


def _took(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, text: str, *, is_new: bool = False) -> None:
    """With `is_new` whoever wrote it first has written it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        if not is_new:
            draft.replace(path)
        elif not path.exists():
            path.hardlink_to(draft)
    except FileExistsError:
        assert is_new
    finally:
        draft.unlink(missing_ok=True)
