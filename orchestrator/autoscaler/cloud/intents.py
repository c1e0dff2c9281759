"""What was ordered of a cloud that makes a second machine for the same order: written down before it is sent.

Such a cloud (names are not unique, no idempotency key) is looked at first, but its lists lag, and an answer
may be lost. So each claim has a record in the provider's folder: sent at that time, then the machine's id.
While no machine of it shows, nothing more is sent for that claim until lists have had their time.
Orchestrators on one host share the folder; another host's does not know it, and a second machine made that
way is found by its tag and ended by reconciliation.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused
from tasks.clock import Clock

SETTLE_S = 120.0
"""For how long a list may not show what was ordered; reconciliation gives it the same."""
KEPT_S = 24 * 3600.0
CLAIM = re.compile(r"[A-Za-z0-9_-]{1,64}")
assert KEPT_S > SETTLE_S, "an order whose outcome is unknown would be forgotten"


@dataclass(frozen=True, slots=True)
class Sent:
    """Of one claim. `at` is the wall clock, 0: never; `machine_id` is "" until an answer came."""

    at: float = 0.0
    machine_id: str = ""


_FORM = TypeAdapter(Sent)


class Intent:
    """The record of one claim, while nobody else has it."""

    def __init__(self, provider: str, descriptor: int, clock: Clock) -> None:
        self._provider = provider
        self._descriptor = descriptor
        self._clock = clock
        self._sent = self._read()

    @property
    def machine_id(self) -> str:
        """Of the machine that it became; "" where nobody was told."""
        return self._sent.machine_id

    def before_sending(self) -> None:
        """Write it down.

        Raises:
            CloudDown: one that was sent a moment ago may have been carried out, and may not show anywhere yet.
        """
        now = self._clock.wall_s()
        left_s = self._sent.at + SETTLE_S - now
        if self._sent.at and left_s > 0:  # a clock set back waits: sent twice is paid twice
            why = "this was ordered a moment ago, and no machine of it shows yet"
            raise CloudDown(self._provider, why, retry_after_s=min(left_s, SETTLE_S))  # sooner is a try for nothing
        self._write(Sent(now))

    def not_carried_out(self) -> None:
        """The cloud said so: it may be sent again at once."""
        self._write(Sent())

    def carried_out(self, machine_id: str) -> None:
        """It is this machine now."""
        self._write(replace(self._sent, machine_id=machine_id))

    def _read(self) -> Sent:
        content = os.pread(self._descriptor, 4096, 0)
        try:
            return _FORM.validate_json(content) if content else Sent()
        except ValidationError:  # the power went while it was written
            return Sent(os.fstat(self._descriptor).st_mtime)

    def _write(self, sent: Sent) -> None:
        self._sent = sent
        body = _FORM.dump_json(sent)
        os.pwrite(self._descriptor, body, 0)  # before the cut to size: an empty record reads as never sent
        os.ftruncate(self._descriptor, len(body))
        os.fsync(self._descriptor)
        now = self._clock.wall_s()
        os.utime(self._descriptor, (now, now))


class Intents:
    """All of one provider, in its folder."""

    def __init__(self, provider: str, folder: Path, clock: Clock) -> None:
        self._provider = provider
        self._folder = folder
        self._clock = clock

    @contextmanager
    def held(self, claim: str) -> Iterator[Intent]:
        """The claim's record, for nobody else meanwhile.

        Raises:
            CloudDown: somebody else has it, or the folder cannot be used.
            OrderRefused: that is no claim's id.
        """
        if not CLAIM.fullmatch(claim):
            raise OrderRefused(self._provider, f"{claim!r} is no claim's id")
        descriptor = self._opened(claim)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Intent(self._provider, descriptor, self._clock)
        except BlockingIOError:
            raise CloudDown(self._provider, "the same is being ordered already") from None
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(descriptor)

    def _opened(self, claim: str) -> int:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget()
            return os.open(self._folder / f"{claim}.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from None

    def _forget(self) -> None:
        """Records of claims that are long settled; none is ordered again after a day."""
        for path in self._folder.glob("*.json"):
            with suppress(FileNotFoundError):  # somebody else was quicker
                if self._clock.wall_s() - path.stat().st_mtime > KEPT_S:
                    path.unlink()

    def _unusable(self, error: OSError) -> CloudDown:
        return CloudDown(self._provider, f"its folder {self._folder} cannot be used: {error.strerror or error}")
