"""Enrolment: a node trades a one-time token for having a credential of its own remembered.

Owns which tokens may still be traded, which credentials may join, and under which name and pool.
Everything is in memory, by digest, and durable before it counts. Refuses to see a credential: a
node makes it and sends its digest only. The shape is in docs/adr/0012-autoscaler.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.identity.tokens import ANY_NODE, digest, new_token
from orchestrator.ledger.values import EnrolmentRow
from tasks.clock import Clock
from tasks.errors import NotAllowed, NotFound, Permanent
from tasks.invocation import Principal
from tasks.node import EnrolReply
from tasks.scale_wire import EnrolmentView
from tasks.scopes import Role

log = structlog.get_logger("mcpfleet.enrolment")
ENROLMENTS_MAX = 10_000
"""Names that may be enrolled at once: about 5 MB."""
TOKENS_MAX = 4
"""Remembered of one name, spent ones too: a creation is asked again a few times, not for ever."""
FORGOTTEN_AFTER_S = 3600.0
"""What expired unused is told so for this long, then it is unknown."""
SPENT = "!"
"""Before the digest of a token that was traded."""


class Store(Protocol):
    """The ledger."""

    async def save_enrolment(self, row: EnrolmentRow) -> None: ...
    async def forget_enrolment(self, name: str) -> None: ...


class Members(Protocol):
    """Nodes that have joined."""

    async def expel(self, name: str) -> None: ...


class EnrolmentExpired(NotAllowed):
    """The token's time was over before it was used."""

    code = "enrolment_expired"

    def __init__(self, name: str, pool: str, late_s: float) -> None:
        super().__init__(
            f"the enrolment token of node {name!r} expired {late_s:.0f} s ago; {_another(name, pool)}: "
            "start the node with that"
        )


class EnrolmentSpent(Permanent):
    """The token was traded already, for another credential."""

    code = "enrolment_spent"
    http_status = 409

    def __init__(self, name: str, pool: str) -> None:
        super().__init__(
            f"the enrolment token of node {name!r} was used already, by a node with another credential; if that was "
            f"not your doing: mcpfleet node revoke {name}. For a node that lost its state, {_another(name, pool)}"
        )


class OtherPool(Permanent):
    """The name is enrolled in another pool."""

    code = "enrolled_elsewhere"
    http_status = 409

    def __init__(self, name: str, pool: str, wanted: str) -> None:
        super().__init__(
            f"node {name!r} is enrolled in pool {pool!r}, not {wanted!r}; mcpfleet node revoke {name}, then enrol it "
            "again, or choose another name"
        )


class NotItsName(Permanent):
    """A credential is good for one name and pool."""

    code = "forbidden"
    http_status = 403

    def __init__(self, name: str, pool: str, wanted_name: str, wanted_pool: str) -> None:
        super().__init__(
            f"the credential of node {name!r} of pool {pool!r} does not let {wanted_name!r} join pool "
            f"{wanted_pool!r}; set MCPFLEET_NODE_NAME and MCPFLEET_NODE_POOL to what it was enrolled for"
        )


class TooManyEnrolments(Permanent):
    """No room for another name."""

    code = "too_many_enrolments"
    http_status = 409

    def __init__(self) -> None:
        super().__init__(f"{ENROLMENTS_MAX} nodes are enrolled, which is the limit; mcpfleet node revoke those gone")


class Enroller:
    """Every enrolment, while this orchestrator leads."""

    def __init__(self, *, store: Store, members: Members, clock: Clock) -> None:
        self._store, self._members, self._clock = store, members, clock
        self._rows: dict[str, EnrolmentRow] = {}
        # By digest of 256 random bits: what a lookup's time tells of it helps nobody to find its token.
        self._by_token: dict[str, str] = {}
        self._by_credential: dict[str, str] = {}
        self._voiding: set[str] = set()
        self._turn = asyncio.Lock()

    def restore(self, rows: Iterable[EnrolmentRow]) -> None:
        """This orchestrator leads now: what the ledger has is all there is."""
        self._rows.clear()
        self._by_token.clear()
        self._by_credential.clear()
        for row in rows:
            self._put(row)

    async def token(self, name: str, pool: str, ttl_s: float) -> str:
        """A token for whoever makes a machine, and may have to ask again: earlier unused ones stay good.

        Raises:
            OtherPool, TooManyEnrolments: there is none.
        """
        return (await self.issue(name, pool, ttl_s, voids_earlier=False)).token

    async def issue(self, name: str, pool: str, ttl_s: float, *, voids_earlier: bool = True) -> EnrolmentView:
        """A new token for this name; a credential that it has works until the token is used.

        Raises:
            OtherPool: the name has a credential for another pool.
            TooManyEnrolments: no room for another name.
        """
        async with self._turn:
            await self._forget_expired()
            before = self._rows.get(name)
            if before is not None and before.credential_digest is not None and before.pool != pool:
                raise OtherPool(name, before.pool, pool)
            if before is None and len(self._rows) >= ENROLMENTS_MAX:
                raise TooManyEnrolments
            token, expires_at = new_token("enrol"), self._clock.wall_s() + ttl_s
            earlier = [] if before is None or before.pool != pool else _tokens(before)
            if voids_earlier:
                earlier = [one for one in earlier if one.startswith(SPENT)]
            credential = before.credential_digest if before else None
            known = " ".join([*earlier, digest(token)][-TOKENS_MAX:])
            await self._save(EnrolmentRow(name, pool, known, expires_at, credential, None))
        log.info("enrolment_issued", node=name, pool=pool, ttl_s=ttl_s, is_rotation=credential is not None)
        return EnrolmentView(
            name=name, pool=pool, token=token, expires_at=expires_at, is_rotation=credential is not None
        )

    async def enrol(self, name: str, token_digest: str, credential_digest: str) -> EnrolReply:
        """Remember the credential. The same one with the same token again is the same as once.

        Raises:
            NotAllowed: the token is unknown, or (EnrolmentExpired) too old.
            EnrolmentSpent: it was used for another credential.
        """
        async with self._turn:
            row = self._rows.get(name)
            if row is None or name in self._voiding or self._by_token.get(token_digest) != name:
                raise NotAllowed(f"this enrolment token of node {name!r} was voided; ask for another")
            if SPENT + token_digest in _tokens(row):
                if row.credential_digest != credential_digest:
                    raise EnrolmentSpent(name, row.pool)
                return EnrolReply(node=name, pool=row.pool)
            now = self._clock.wall_s()
            if now >= row.expires_at:
                raise EnrolmentExpired(name, row.pool, now - row.expires_at)
            spent = " ".join(SPENT + one.removeprefix(SPENT) for one in _tokens(row))  # the others with it
            await self._save(replace(row, token_digest=spent, credential_digest=credential_digest, used_at=now))
        log.info("node_enrolled", node=name, pool=row.pool)
        return EnrolReply(node=name, pool=row.pool)

    async def revoke(self, name: str) -> None:
        """Void its tokens and its credential, and end what is joined under that name now.

        The running process loses its own token too, and counts as lost at once: whoever revokes a
        node does not trust it any more, or knows that it has gone. Saying it again, or of a name
        that nobody enrolled, changes nothing.

        Raises:
            LedgerDown, EpochLost: it may still be good; say it again.
        """
        async with self._turn:
            if name not in self._rows:
                return
            self._voiding.add(name)  # first: it shall not join again while it is being put out
            try:
                await self._members.expel(name)
                await self._store.forget_enrolment(name)
                self._drop(name)
            finally:
                self._voiding.discard(name)
        log.info("enrolment_revoked", node=name)

    def require(self, name: str) -> None:
        """Raises NotFound where nobody enrolled that name."""
        if name not in self._rows:
            raise NotFound("enrolled node", name, list(self._rows))

    def principal(self, seen: str) -> Principal | None:
        """Who a bearer with this digest is: a node that enrols, or one that may join under its name."""
        if name := self._by_token.get(seen):
            return Principal(id=name, roles=frozenset({Role.ENROL}), credential="enrolment token")
        name = self._by_credential.get(seen)
        if name is None or name in self._voiding:
            return None
        return Principal(id=name, roles=frozenset({Role.JOIN}), credential="node")

    def check(self, principal: Principal, name: str, pool: str) -> None:
        """Whether this bearer of the role `join` may join so.

        Raises:
            NotItsName: another name, or another pool.
            NotAllowed: its credential was voided since it asked.
        """
        if principal.id == ANY_NODE:
            return
        row = self._rows.get(principal.id)
        if row is None or principal.id in self._voiding:
            raise NotAllowed(f"the credential of node {principal.id!r} was voided")
        if (name, pool) != (row.name, row.pool):
            raise NotItsName(row.name, row.pool, name, pool)

    async def _forget_expired(self) -> None:
        before = self._clock.wall_s() - FORGOTTEN_AFTER_S
        old = [row.name for row in self._rows.values() if row.credential_digest is None and row.expires_at < before]
        for name in old:
            await self._store.forget_enrolment(name)
            self._drop(name)

    async def _save(self, row: EnrolmentRow) -> None:
        await self._store.save_enrolment(row)
        self._drop(row.name)
        self._put(row)

    def _put(self, row: EnrolmentRow) -> None:
        self._rows[row.name] = row
        for one in _tokens(row):
            self._by_token[one.removeprefix(SPENT)] = row.name
        if row.credential_digest is not None:
            self._by_credential[row.credential_digest] = row.name

    def _drop(self, name: str) -> None:
        row = self._rows.pop(name, None)
        if row is None:
            return
        for one in _tokens(row):
            self._by_token.pop(one.removeprefix(SPENT), None)
        if row.credential_digest is not None:
            self._by_credential.pop(row.credential_digest, None)


def _tokens(row: EnrolmentRow) -> list[str]:
    """Digests of its tokens, oldest first; those that were traded begin with `SPENT`."""
    return row.token_digest.split()


def _another(name: str, pool: str) -> str:
    return f"mcpfleet node enrol {name} --pool {pool} makes another"
