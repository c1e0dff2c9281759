"""What a provider on this host remembers: a record per machine in a folder, and one lock for all of them.

Any number of processes may share the folder: each looks and changes under the lock only. Refuses to
guess: a record that cannot be read is an error, because the machine behind it would be forgotten.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from orchestrator.autoscaler.cloud.errors import CloudDown
from orchestrator.autoscaler.cloud.provider import Machine, Order, Power

RECORD = "machine.json"
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Kept:
    """The order, but for what is secret in it."""

    claim: str
    name: str
    cluster: str
    pool: str
    type: str
    region: str
    created_at: float
    expires_at: float

    def machine(self, machine_id: str, power: Power, address: str) -> Machine:
        """As the autoscaler knows it."""
        return Machine(
            id=machine_id,
            name=self.name,
            claim=self.claim,
            power=power,
            address=address,
            type=self.type,
            region=self.region,
            created_at=self.created_at,
            expires_at=self.expires_at,
        )


def kept_of(order: Order, now_s: float) -> Kept:
    """What is remembered of it."""
    return Kept(
        claim=order.claim,
        name=order.name,
        cluster=order.cluster,
        pool=order.pool,
        type=order.type,
        region=order.region,
        created_at=now_s,
        expires_at=order.expires_at,
    )


class HasKept(Protocol):
    """What every record has."""

    @property
    def kept(self) -> Kept:
        """The order."""


Record = TypeVar("Record", bound=HasKept)


class RecordFolder(Generic[Record]):
    """Records of one provider, each in a sub-folder with its key as the name."""

    def __init__(self, provider: str, folder: Path, form: type[Record]) -> None:
        self._provider = provider
        self.folder = folder
        self._form = TypeAdapter(form)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else looks or changes meanwhile, in this process or another.

        Raises:
            CloudDown: the folder cannot be used.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._down(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise self._down(error) from error
        finally:
            os.close(descriptor)

    def all(self) -> dict[str, Record]:
        """By key, oldest first."""
        found = {path.parent.name: self._read(path) for path in self.folder.glob(f"*/{RECORD}")}
        return dict(sorted(found.items(), key=lambda item: (item[1].kept.created_at, item[0])))

    def write(self, key: str, record: Record) -> None:
        """All of it or nothing, also when the power goes."""
        home = self.folder / key
        home.mkdir(mode=0o700, exist_ok=True)
        fresh = home / f"{RECORD}.new"
        with fresh.open("wb") as file:
            file.write(self._form.dump_json(record))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(home / RECORD)

    def remove(self, key: str) -> None:
        """Forget it; what else is in its folder stays."""
        (self.folder / key / RECORD).unlink(missing_ok=True)

    def _read(self, path: Path) -> Record:
        try:
            return self._form.validate_json(path.read_bytes())
        except ValidationError as error:
            raise CloudDown(
                self._provider, f"the record {path} cannot be understood; see to its machine and remove it"
            ) from error

    def _down(self, error: OSError) -> CloudDown:
        return CloudDown(self._provider, f"its folder {self.folder} cannot be used: {error.strerror or error}")
