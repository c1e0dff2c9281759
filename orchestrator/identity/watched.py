"""The doors' Verifier, watched: guessing is slowed down, and what was refused is in the audit log.

A guess is what nobody issued. What is over, revoked, or not good from there was issued once: twenty agents behind
one NAT whose tokens expire together guess nothing. One place for both doors. Nothing of a refused credential is
kept but that it was refused, from where and why.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.identity.lockout import LockedOut, Lockout
from orchestrator.identity.oauth.errors import ForgedToken
from orchestrator.ledger.audit_values import AuditEntry, Decision, Detail
from orchestrator.presented import Presented
from tasks.clock import Clock
from tasks.errors import FleetError, NotAllowed
from tasks.invocation import Principal

ACTION, LOCKED = "authenticate", "lock_out"
NOBODY = "anonymous"
SERVER_FAULT = 500


class Verifier(Protocol):
    """Who a request's credentials stand for."""

    async def verify(self, presented: Presented) -> Principal | None: ...


class Audit(Protocol):
    """The audit log."""

    async def refused(self, entry: AuditEntry) -> None: ...


class Watched:
    """Satisfies both doors' Verifier."""

    def __init__(self, verifier: Verifier, *, lockout: Lockout, audit: Audit, clock: Clock) -> None:
        self._verifier, self._lockout, self._audit, self._clock = verifier, lockout, audit, clock

    async def verify(self, presented: Presented) -> Principal | None:
        """Who this is.

        Raises:
            LockedOut: its address has guessed too much.
            NotAllowed: as the verifier does.
        """
        peer, token = presented.peer, presented.token
        try:
            self._lockout.check(peer, token, self._clock.mono_s())
            principal = await self._verifier.verify(presented)
        except LockedOut as error:
            await self._say(presented, error.code)
            raise
        except FleetError as error:
            if error.http_status < SERVER_FAULT:
                reason = error.message if isinstance(error, NotAllowed) else error.code
                told = self._wrong if isinstance(error, ForgedToken) else self._say
                await told(presented, reason)
            raise
        if principal is None:
            await self._wrong(presented, "nobody knows these credentials")
        else:
            self._lockout.good(peer, token)
        return principal

    async def _wrong(self, presented: Presented, reason: str) -> None:
        locked_s = self._lockout.wrong(presented.peer, presented.token, self._clock.mono_s())
        await self._say(presented, reason)
        if locked_s is not None:
            details: dict[str, Detail] = {"seconds": round(locked_s)}
            reason = "too many different credentials that nobody knows"
            await self._audit.refused(_entry(LOCKED, presented, reason, details))

    async def _say(self, presented: Presented, reason: str) -> None:
        await self._audit.refused(_entry(ACTION, presented, reason, {}))


def _entry(action: str, presented: Presented, reason: str, details: dict[str, Detail]) -> AuditEntry:
    peer = presented.peer or ""
    return AuditEntry(action, Decision.REFUSED, NOBODY, peer=peer, reason=reason, details=details)
