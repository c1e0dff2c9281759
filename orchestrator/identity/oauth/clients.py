"""Clients of the authorization server: registered by the operator, each with a secret or a key.

In memory at whoever leads, durable before it counts. A secret is made here, shown once and kept by digest.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from orchestrator.identity.oauth.jose import PublicKey, public_key
from orchestrator.identity.tokens import digest, new_token
from orchestrator.ledger.oauth_values import ClientRow
from tasks.clock import Clock
from tasks.errors import InvalidCall, NotFound, Permanent
from tasks.invocation import TENANT_PATTERN, Principal
from tasks.scopes import GIVEN, Scope, beyond, scopes_of

log = structlog.get_logger("mcpfleet.oauth")
CLIENTS_MAX = 10_000
OVERLAP_MAX_S = 30 * 86_400.0
_NOBODYS = digest(secrets.token_urlsafe(32))
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class ClientStore(Protocol):
    """The ledger."""

    async def clients(self) -> list[ClientRow]: ...
    async def save_client(self, row: ClientRow) -> None: ...


class TooManyClients(Permanent):
    """No room for another one."""

    code = "too_many_clients"
    http_status = 409

    def __init__(self) -> None:
        super().__init__(f"{CLIENTS_MAX} clients are registered, which is the limit")


class Clients:
    """Every client, while this orchestrator leads."""

    def __init__(self, *, store: ClientStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._rows: dict[str, ClientRow] = {}
        self._keys: dict[str, PublicKey] = {}

    async def restore(self) -> None:
        """This orchestrator leads now. Raises LedgerDown."""
        self._rows, self._keys = {}, {}
        for row in await self._store.clients():
            self._put(row)

    async def register(
        self, name: str, principal: Principal, *, jwk: Mapping[str, Any] | None, by: str
    ) -> tuple[ClientRow, str | None]:
        """A new client, and its secret where it has one.

        Args:
            name: for people.
            principal: as whom it acts: tenant, roles, groups, and the most that it may ask for.
            jwk: its public key; None: it gets a secret.
            by: who registers it.

        Raises:
            InvalidCall: a role that tokens may not carry, a tenant or scope that is none, or a key that cannot verify.
            TooManyClients: no room.
        """
        if len(self._rows) >= CLIENTS_MAX:
            raise TooManyClients
        _check(principal)
        secret = None if jwk is not None else new_token("client")
        row = ClientRow(
            id=f"client-{secrets.token_hex(8)}",
            name=name,
            tenant=principal.tenant,
            roles=" ".join(sorted(principal.roles)),
            scopes=None if principal.scopes is None else " ".join(sorted(principal.scopes)),
            groups=" ".join(sorted(principal.groups)),
            secret_digest=secret and digest(secret),
            previous_digest=None,
            previous_until=None,
            jwk_json=None if jwk is None else _checked(jwk),
            created_at=self._clock.wall_s(),
            created_by=by,
            revoked_at=None,
        )
        await self._save(row)
        log.info("oauth_client_registered", client=row.id, tenant=row.tenant, roles=row.roles, by=by)
        return row, secret

    async def rotate(
        self, client_id: str, tenant: str | None, *, overlap_s: float, jwk: Mapping[str, Any] | None
    ) -> tuple[ClientRow, str | None]:
        """Another secret, or another key; the old secret goes on for `overlap_s`, an old key ends at once.

        Raises:
            NotFound, InvalidCall: nothing was changed.
        """
        row = self.get(client_id, tenant)
        if row.revoked_at is not None:
            raise InvalidCall(f"the client {client_id} was revoked; register another")
        if jwk is not None:
            changed = replace(
                row, jwk_json=_checked(jwk), secret_digest=None, previous_digest=None, previous_until=None
            )
            await self._save(changed)
            return changed, None
        if row.jwk_json is not None:
            raise InvalidCall(f"the client {client_id} signs with a key; give the new public key")
        secret = new_token("client")
        until = self._clock.wall_s() + min(overlap_s, OVERLAP_MAX_S)
        changed = replace(row, secret_digest=digest(secret), previous_digest=row.secret_digest, previous_until=until)
        await self._save(changed)
        log.info("oauth_client_rotated", client=client_id, overlap_s=overlap_s)
        return changed, secret

    async def revoke(self, client_id: str, tenant: str | None) -> ClientRow:
        """It gets no token any more, and those that it has are refused. Saying it again changes nothing.

        Raises:
            NotFound: there is none of this tenant.
        """
        row = self.get(client_id, tenant)
        if row.revoked_at is None:
            row = replace(
                row, revoked_at=self._clock.wall_s(), secret_digest=None, previous_digest=None, previous_until=None
            )
            await self._save(row)
            log.info("oauth_client_revoked", client=client_id)
        return row

    def listing(self, tenant: str | None) -> list[ClientRow]:
        """Of one tenant, or all of them."""
        return [row for row in self._rows.values() if tenant in {None, row.tenant}]

    def get(self, client_id: str, tenant: str | None) -> ClientRow:
        """Raises NotFound: there is none of this tenant."""
        row = self._rows.get(client_id)
        if row is None or tenant not in {None, row.tenant}:
            raise NotFound("OAuth client", client_id)
        return row

    def whom(self, client_id: str, tenant: str | None) -> Principal:
        """As whom it acts. Raises NotFound: there is none of this tenant."""
        return principal_of(self.get(client_id, tenant))

    def active(self, client_id: str) -> ClientRow | None:
        """The client, unless it was revoked."""
        row = self._rows.get(client_id)
        return row if row is not None and row.revoked_at is None else None

    def key_of(self, client_id: str) -> PublicKey | None:
        """Its public key."""
        return self._keys.get(client_id)

    def has_secret(self, row: ClientRow | None, secret: str) -> bool:
        """Whether this is its secret. An unknown client costs the same comparisons."""
        seen = digest(secret)
        is_now = hmac.compare_digest((row and row.secret_digest) or _NOBODYS, seen)
        was = hmac.compare_digest((row and row.previous_digest) or _NOBODYS, seen)
        return is_now or (was and row is not None and self._clock.wall_s() < (row.previous_until or 0.0))

    async def _save(self, row: ClientRow) -> None:
        await self._store.save_client(row)
        self._put(row)

    def _put(self, row: ClientRow) -> None:
        self._rows[row.id] = row
        self._keys.pop(row.id, None)
        if row.jwk_json is not None and (key := public_key(json.loads(row.jwk_json))) is not None:
            self._keys[row.id] = key


def principal_of(row: ClientRow) -> Principal:
    """As whom it acts, with all that it may ask for."""
    return Principal(
        id=row.id,
        tenant=row.tenant,
        roles=split(row.roles) or frozenset(),
        scopes=split(row.scopes),
        groups=split(row.groups) or frozenset(),
    )


def allowed(row: ClientRow) -> frozenset[str]:
    """Every scope that it may ask for."""
    return frozenset(scopes_of(principal_of(row)))


def split(words: str | None) -> frozenset[str] | None:
    """A row's words."""
    return None if words is None else frozenset(words.split())


def _check(wanted: Principal) -> None:
    if wrong := sorted(wanted.roles - GIVEN):
        raise InvalidCall(f"a client cannot have the role {wrong[0][:80]!r}; it can have {', '.join(sorted(GIVEN))}")
    if not TENANT_PATTERN.fullmatch(wanted.tenant):
        raise InvalidCall(f"{wanted.tenant[:80]!r} is no tenant: write [a-z0-9][a-z0-9_-]*, at most 63 characters")
    if wrong := sorted((wanted.scopes or frozenset()) - frozenset(Scope)):
        raise InvalidCall(f"{wrong[0][:80]!r} is no scope; there are {', '.join(sorted(Scope))}")
    if wrong := beyond(wanted.roles, wanted.scopes):
        raise InvalidCall(
            f"scopes only narrow what roles allow, and {' and '.join(sorted(wanted.roles))} has no {wrong[0]}"
        )
    if wrong := sorted(one for one in wanted.groups if not one or any(map(str.isspace, one))):
        raise InvalidCall(f"{wrong[0][:80]!r} is no group: write words without blanks")


def _checked(jwk: Mapping[str, Any]) -> str:
    if _PRIVATE_MEMBERS & set(jwk):
        raise InvalidCall("this key has its private half in it; take it as no longer secret, and give a public one")
    if public_key(jwk) is None:
        raise InvalidCall(
            "this is no public key that can verify: give one JWK with kty EC (P-256), RSA (2048 bits or more) or OKP "
            "(Ed25519)"
        )
    return json.dumps(jwk, sort_keys=True)
