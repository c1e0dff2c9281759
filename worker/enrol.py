"""What this node joins with: the fleet's join token, or a credential of its own.

A one-time token is traded once for having the credential's digest remembered. The order makes every
crash harmless: the credential is on disk before the orchestrator hears of its digest, in
`<name>.credential.next`, and becomes `<name>.credential` once it was accepted. Whoever starts again
in between finds it there and says the same digest, which is the same as once.

Refuses to send the credential anywhere but in the join's header, and to log it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import NotAllowed, OrchestratorDown, SettingsError
from tasks.node import EnrolReply, EnrolRequest
from worker.certificate import Certificate
from worker.door import Refused

T = TypeVar("T")
RETRY_FIRST_S = 0.2
RETRY_CAP_S = 5.0
"""Between two tries to enrol: the orchestrator may start after its nodes."""
SECRET_BYTES = 32
_log = structlog.get_logger()


class EnrolDoor(Protocol):
    """The orchestrator, for a node that is not a member yet."""

    token: str

    async def enrol(self, name: str, request: EnrolRequest) -> EnrolReply:
        """Trade the token."""
        ...


class Kept(BaseModel):
    """One credential on disk."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    secret: str
    token_digest: str
    """Of the token that it was, or is to be, traded for: a start with the same token trades no more."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the settings say; empty where they say nothing."""

    enrol_token: str
    join_token: str


class Credentials:
    """One node's. Made after the journal was opened, which keeps a second process out."""

    def __init__(
        self,
        folder: Path,
        name: str,
        given: Given,
        draw: Callable[[], float],
        certificate: Certificate | None = None,
    ) -> None:
        self._name, self._given, self._draw, self._certificate = name, given, draw, certificate
        self._path = folder / f"{name}.credential"
        self._next_path = folder / f"{name}.credential.next"
        self._current, self._next = _read(self._path), _read(self._next_path)
        if not (self._current or self._next or given.enrol_token or given.join_token):
            raise SettingsError(
                f"node {name!r} has nothing to join with: set MCPFLEET_NODE_ENROL_TOKEN to what `mcpfleet node enrol "
                f"{name} --pool POOL` prints, or MCPFLEET_NODE_JOIN_TOKEN to the fleet's join token"
            )

    async def enter(self, door: EnrolDoor, attempt: Callable[[], Awaitable[T]]) -> T:
        """Enrol where that is due, then `attempt` to join with the first of what we have that is accepted.

        Raises:
            NotAllowed, Refused: none is, or the token is not.
            SettingsError: the credential cannot be kept.
        """
        await self._enrol(door)
        *others, last = self._secrets()
        for secret in others:
            try:
                return await self._join_with(secret, door, attempt)
            except NotAllowed as error:
                _log.warning("credential_refused", detail=error.message, effect="the next one is tried")
        return await self._join_with(last, door, attempt)

    async def _join_with(self, secret: str, door: EnrolDoor, attempt: Callable[[], Awaitable[T]]) -> T:
        door.token = secret
        answer = await attempt()
        if self._next is not None and secret == self._next.secret:
            self._promote()
        return answer

    def _secrets(self) -> list[str]:
        """Best first. With one of our own the fleet's token is not tried: what was revoked stays out."""
        own = [kept.secret for kept in (self._current, self._next) if kept is not None]
        return own or [self._given.join_token]

    async def _enrol(self, door: EnrolDoor) -> None:
        token = self._given.enrol_token
        if not token or (self._current is not None and self._current.token_digest == _digest(token)):
            return
        if self._next is None or self._next.token_digest != _digest(token):
            made = Kept(secret=f"mcf_cred_{secrets.token_urlsafe(SECRET_BYTES)}", token_digest=_digest(token))
            _write(self._next_path, made)  # before anybody hears of it
            self._next = made
        try:
            await self._trade(door, token, self._next)
        except (NotAllowed, Refused) as error:
            if self._current is None and not self._given.join_token:
                raise
            self._abandon()
            instead = "the credential it has" if self._current else "the fleet's join token"
            _log.warning("enrolment_refused", detail=error.message, effect=f"joins with {instead}")
        else:
            self._promote()

    async def _trade(self, door: EnrolDoor, token: str, made: Kept) -> None:
        csr = None if self._certificate is None else self._certificate.csr()
        request, wait_s = EnrolRequest(credential_digest=_digest(made.secret), csr=csr), RETRY_FIRST_S
        while True:
            door.token = token
            try:
                reply = await door.enrol(self._name, request)
            except OrchestratorDown as error:
                pause_s = wait_s * (0.5 + self._draw() / 2)
                _log.warning("enrolment_waits", detail=str(error), again_in_s=round(pause_s, 2))
                await asyncio.sleep(pause_s)
                wait_s = min(RETRY_CAP_S, wait_s * 2)
            else:
                if self._certificate is not None:
                    self._certificate.take(reply.certificate, reply.roots)
                _log.info("enrolled", node=reply.node, pool=reply.pool)
                return

    def _promote(self) -> None:
        """It was accepted: it takes the place of the one before."""
        try:
            self._next_path.replace(self._path)
            _sync(self._path.parent)
        except OSError as error:
            raise _unkept(self._path, error) from error
        self._current, self._next = self._next, None

    def _abandon(self) -> None:
        self._next_path.unlink(missing_ok=True)
        self._next = None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> Kept | None:
    try:
        return Kept.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        detail = error.strerror if isinstance(error, OSError) else "it is not what we wrote"
        raise SettingsError(
            f"the credential {path} cannot be read ({detail}); remove it and give the node another token, "
            "`mcpfleet node enrol` makes one"
        ) from None


def _write(path: Path, kept: Kept) -> None:
    """Whole or not at all, for our eyes only, on the disk when this returns."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(kept.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _unkept(path, error) from error


def _sync(folder: Path) -> None:
    """A new name is on the disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unkept(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"the credential {path} cannot be kept ({error.strerror}); check that the directory is writable and the disk "
        "not full, or set MCPFLEET_NODE_STATE_DIR"
    )
