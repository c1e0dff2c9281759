"""API keys: who holds one, from where, until when, and its successor.

Owns every key while this orchestrator leads: in memory by id, durable before it counts. Refuses to keep a key
itself: only its digest. Nobody gives more than he may do himself. The shape is in docs/adr/0018-identity.md.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Protocol

import structlog

from orchestrator.identity.key_errors import (
    KeyElsewhere,
    KeyExpired,
    KeyHasNoSecret,
    KeyReplaced,
    KeyTooYoung,
    MoreThanOwn,
    NoSuchKey,
    TooManyKeys,
)
from orchestrator.identity.key_text import PREFIX, id_of, new_id, new_key
from orchestrator.identity.tokens import digest
from orchestrator.ledger.key_values import IssuedKey, KeyRow, WantedKey
from orchestrator.presented import Presented
from tasks.clock import Clock
from tasks.invocation import FLEET_TENANT, Principal
from tasks.scopes import Scope, require, scopes_of

log = structlog.get_logger("mcpfleet.keys")
KEYS_MAX = 10_000
"""In all: about 10 MB."""
OVERLAP_S = 72 * 3600.0
"""Both keys work so long after a rotation, at most."""
LISTED_AFTER_S = 30 * 86_400.0
"""An expired key is told so for this long, then it is unknown."""
HOLDER = "key:"
"""Before the id, in `created_by`: whoever held that key made this one."""
_NOBODY = digest("")
"""Compared with where there is no key, so that an unknown id takes as long as a wrong secret."""


class Store(Protocol):
    """The ledger's table of keys."""

    async def save(self, row: KeyRow) -> None: ...
    async def forget(self, key_id: str) -> None: ...


class Keys:
    """Every API key, while this orchestrator leads. An Authenticator."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._rows: dict[str, KeyRow] = {}
        self._networks: dict[str, tuple[object, ...]] = {}
        self._used: set[str] = set()
        self._turn = asyncio.Lock()

    def restore(self, rows: Iterable[KeyRow]) -> None:
        """This orchestrator leads now: what the ledger has is all there is."""
        self._rows.clear()
        self._used.clear()
        for row in rows:
            self._rows[row.id] = row

    async def principal(self, presented: Presented) -> Principal | None:
        """Who holds this key; None for what is none.

        Raises:
            KeyExpired, KeyElsewhere: it is one, and not good now, or not from there.
        """
        if not presented.token.startswith(PREFIX):
            return None
        key_id = id_of(presented.token)
        row = None if key_id is None else self._rows.get(key_id)
        known = _NOBODY if row is None or row.digest is None else row.digest
        if not hmac.compare_digest(known, digest(presented.token)) or row is None:
            return None
        return self.admit(row, presented.peer)

    def admit(self, row: KeyRow, peer: str | None) -> Principal:
        """Whoever proved to hold this key.

        Raises:
            KeyExpired, KeyElsewhere: it is not good now, or not from there.
        """
        now = self._clock.wall_s()
        if row.expires_at is not None and now >= row.expires_at:
            raise KeyExpired(row.id, row.name, now - row.expires_at)
        if row.networks and not _is_within(peer, row.networks):
            raise KeyElsewhere(row.id, row.name, peer)
        self._rows[row.id] = replace(row, used_at=now, used_from=peer)
        self._used.add(row.id)
        return principal_of(row)

    def find(self, key_id: str) -> KeyRow | None:
        """One, of any tenant."""
        return self._rows.get(key_id)

    def listing(self, by: Principal) -> list[KeyRow]:
        """Those that he may see, oldest first."""
        seen = [row for row in self._rows.values() if _sees(by, row.tenant)]
        return sorted(seen, key=lambda row: (row.created_at, row.id))

    def get(self, key_id: str, by: Principal) -> KeyRow:
        """Raises NoSuchKey, also for another tenant's."""
        row = self._rows.get(key_id)
        if row is None or not _sees(by, row.tenant):
            raise NoSuchKey(key_id, [one.id for one in self.listing(by)])
        return row

    async def issue(self, wanted: WantedKey, by: Principal) -> IssuedKey:
        """A new key.

        Raises:
            MoreThanOwn: it would do what `by` may not, or be another tenant's.
            TooManyKeys: no room for another.
        """
        _check_may_give(wanted, by)
        async with self._turn:
            await self._forget_expired()
            if len(self._rows) >= KEYS_MAX:
                raise TooManyKeys(KEYS_MAX)
            now, key_id = self._clock.wall_s(), new_id()
            row = KeyRow(
                id=key_id,
                name=wanted.name,
                tenant=wanted.tenant,
                principal=wanted.principal or key_id,
                roles=_words(wanted.roles),
                scopes=None if wanted.scopes is None else _words(wanted.scopes),
                groups=_words(wanted.groups),
                networks=" ".join(wanted.networks),
                digest=None,
                public_key=wanted.public_key,
                created_at=now,
                created_by=by.id,
                expires_at=None if wanted.lifetime_s is None else now + wanted.lifetime_s,
                lifetime_s=wanted.lifetime_s,
            )
            issued = await self._kept(row)
        log.info("key_issued", key=row.id, principal=row.principal, tenant=row.tenant, roles=row.roles, by=by.id)
        return issued

    async def rotate(self, key_id: str, by: Principal, *, is_own: bool = False) -> IssuedKey:
        """Its successor; both work for a while. One that nobody has used yet is replaced: its answer was lost.

        Args:
            key_id: whose.
            by: who asks.
            is_own: whoever asks showed this very key: he may when it is due, and needs no scope.

        Raises:
            NoSuchKey, ScopeMissing, KeyTooYoung, TooManyKeys
            KeyReplaced: its holder has used a successor already.
            KeyHasNoSecret: it only signs.
        """
        async with self._turn:
            row = self._rows.get(key_id) if is_own else self.get(key_id, by)
            if row is None:
                raise NoSuchKey(key_id, [])
            if row.digest is None:
                raise KeyHasNoSecret(row.id)
            now = self._clock.wall_s()
            if is_own and (due := row.due_at) is not None and now < due:
                raise KeyTooYoung(row.id, due - now)
            if not is_own:
                require(by, Scope.KEYS_WRITE)
                _check_may_give(_as_wanted(row), by)
            made = [one for one in self._rows.values() if one.succeeds == row.id]
            if is_own and any(one.used_at is not None for one in made):
                raise KeyReplaced(row.id)
            for old in [one for one in made if one.used_at is None]:
                await self._drop(old.id)
            if len(self._rows) >= KEYS_MAX:
                raise TooManyKeys(KEYS_MAX)
            successor = replace(
                row,
                id=new_id(),
                digest=None,
                created_at=now,
                created_by=f"{HOLDER}{row.id}" if is_own else by.id,
                expires_at=None if row.lifetime_s is None else now + row.lifetime_s,
                succeeds=row.id,
                used_at=None,
                used_from=None,
            )
            issued = await self._kept(successor)
            ends = now + OVERLAP_S if row.expires_at is None else min(row.expires_at, now + OVERLAP_S)
            await self._save(replace(row, expires_at=ends))
        log.info("key_rotated", key=row.id, successor=successor.id, by=by.id)
        return issued

    async def revoke(self, key_id: str, by: Principal) -> list[KeyRow]:
        """It is void at once, and with it every successor that its holder made: that may have been a thief.

        Returns:
            All that are void now, the key itself first. Successors that an admin made stay.

        Raises:
            NoSuchKey: also for another tenant's.
            LedgerDown: they are void here and now, and may be good again after a restart: say it again.
        """
        async with self._turn:
            gone = [self.get(key_id, by)]
            for row in gone:  # grows as it goes
                gone += [one for one in self._rows.values() if one.created_by == f"{HOLDER}{row.id}"]
            for row in gone:
                self._rows[row.id] = replace(row, expires_at=0.0)  # void, and still there to be named again
            for row in gone:
                await self._drop(row.id)
        log.info("key_revoked", keys=[row.id for row in gone], by=by.id)
        return gone

    async def save_uses(self) -> None:
        """Write down when keys were used last; for a loop, so that no call waits for it."""
        for key_id in list(self._used):
            async with self._turn:
                self._used.discard(key_id)
                row = self._rows.get(key_id)
                if row is not None:
                    await self._store.save(row)

    async def _kept(self, row: KeyRow) -> IssuedKey:
        key = None if row.public_key is not None else new_key(row.id)
        row = replace(row, digest=None if key is None else digest(key))
        await self._save(row)
        return IssuedKey(row, key)

    async def _save(self, row: KeyRow) -> None:
        await self._store.save(row)
        self._rows[row.id] = row

    async def _drop(self, key_id: str) -> None:
        await self._store.forget(key_id)
        self._rows.pop(key_id, None)

    def ends(self) -> list[tuple[float, float]]:
        """When each key that nobody traded for its successor was made, and when it ends; wall clock."""
        rows = self._rows.values()
        traded = {row.succeeds for row in rows}
        return [(row.created_at, row.expires_at) for row in rows if row.expires_at and row.id not in traded]

    async def _forget_expired(self) -> None:
        before = self._clock.wall_s() - LISTED_AFTER_S
        for row in [one for one in self._rows.values() if one.expires_at is not None and one.expires_at < before]:
            await self._drop(row.id)


def principal_of(row: KeyRow) -> Principal:
    """Who a key stands for. The same object every time: waiting calls keep it."""
    return _principal(row.id, row.principal, row.tenant, row.roles, row.scopes, row.groups)


@lru_cache(KEYS_MAX)
def _principal(  # noqa: PLR0917 - what makes a principal
    key_id: str, name: str, tenant: str, roles: str, scopes: str | None, groups: str
) -> Principal:
    return Principal(
        id=name,
        tenant=tenant,
        roles=frozenset(roles.split()),
        scopes=None if scopes is None else frozenset(scopes.split()),
        groups=frozenset(groups.split()),
        credential=f"key:{key_id}",
    )


def _sees(by: Principal, tenant: str) -> bool:
    return by.tenant in {FLEET_TENANT, tenant}


def _check_may_give(wanted: WantedKey, by: Principal) -> None:
    if not _sees(by, wanted.tenant):
        raise MoreThanOwn(by.id, f"keys of tenant {wanted.tenant!r}")
    wished = Principal(wanted.principal or "", wanted.tenant, wanted.roles, wanted.scopes)
    if by.tenant != FLEET_TENANT and wanted.groups - by.groups:
        raise MoreThanOwn(by.id, f"the groups {', '.join(sorted(wanted.groups - by.groups))}")
    more = scopes_of(wished) - scopes_of(by)
    if more:
        raise MoreThanOwn(by.id, ", ".join(sorted(more)))


def _as_wanted(row: KeyRow) -> WantedKey:
    principal = principal_of(row)
    return WantedKey(row.name, row.principal, row.tenant, principal.roles, principal.scopes, principal.groups)


def _words(words: Iterable[str]) -> str:
    return " ".join(sorted(words))


def _is_within(peer: str | None, networks: str) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in ip_network(one) for one in networks.split())
