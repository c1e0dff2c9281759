"""Paths for the clients of the built-in authorization server: an operator registers, rotates and revokes them.

Nobody gives more than they have: a client may ask for no scope that whoever registers it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.problems import NotYours
from orchestrator.api.reply import Reply, listing, model
from orchestrator.ledger.oauth_values import ClientRow
from tasks.errors import Permanent
from tasks.invocation import FLEET_TENANT, Principal
from tasks.oauth_wire import (
    OAuthClientRequest,
    OAuthClientView,
    OAuthKeysRequest,
    OAuthKeysView,
    OAuthRotateRequest,
)
from tasks.scopes import Scope, scopes_of
from tasks.wire import Page


class Clients(Protocol):
    """Registered clients."""

    async def register(
        self, name: str, principal: Principal, *, jwk: Mapping[str, Any] | None, by: str
    ) -> tuple[ClientRow, str | None]: ...
    async def rotate(
        self, client_id: str, tenant: str | None, *, overlap_s: float, jwk: Mapping[str, Any] | None
    ) -> tuple[ClientRow, str | None]: ...
    async def revoke(self, client_id: str, tenant: str | None) -> ClientRow: ...
    def listing(self, tenant: str | None) -> list[ClientRow]: ...
    def whom(self, client_id: str, tenant: str | None) -> Principal: ...


class Keys(Protocol):
    """What signs."""

    async def rotate(self, *, withdraw: bool) -> str: ...


class OAuthClients(Protocol):
    """The authorization server, as an operator steers it."""

    @property
    def clients(self) -> Clients: ...
    @property
    def keys(self) -> Keys: ...


class NoAuthorizationServer(Permanent):
    """It is off."""

    code = "no_authorization_server"
    http_status = 409

    def __init__(self) -> None:
        super().__init__("the built-in authorization server is off; set MCPFLEET_OAUTH_SERVER=true and restart")


class OAuthDoor:
    """Clients and signing keys."""

    def __init__(self, server: OAuthClients | None) -> None:
        self._maybe = server

    @property
    def _server(self) -> OAuthClients:
        if self._maybe is None:
            raise NoAuthorizationServer
        return self._maybe

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        shown = Answer("the client; its secret is shown once", OAuthClientView)
        return (
            Operation("POST", "/v1/oauth/clients", "register_oauth_client", Scope.KEYS_WRITE,
                      "Register a client that gets tokens by client credentials", self.register, {201: shown},
                      body=OAuthClientRequest, errors=(409,), tag="oauth"),
            Operation("GET", "/v1/oauth/clients", "list_oauth_clients", Scope.KEYS_READ, "Registered clients",
                      self.listing, {200: Answer("clients, revoked ones too", Page[OAuthClientView])}, errors=(409,),
                      tag="oauth"),
            Operation("DELETE", "/v1/oauth/clients/{id}", "revoke_oauth_client", Scope.KEYS_WRITE,
                      "Give it no token any more, and refuse those that it has", self.revoke,
                      {204: Answer("revoked")}, errors=(404, 409), tag="oauth"),
            Operation("POST", "/v1/oauth/clients/{id}/rotate", "rotate_oauth_client", Scope.KEYS_WRITE,
                      "Give it another secret, or take another public key", self.rotate, {200: shown},
                      body=OAuthRotateRequest, errors=(404, 409), tag="oauth"),
            Operation("POST", "/v1/oauth/keys/rotate", "rotate_oauth_keys", Scope.KEYS_WRITE,
                      "Sign with a new key from now on", self.rotate_keys,
                      {200: Answer("the new key", OAuthKeysView)}, body=OAuthKeysRequest, errors=(409,), tag="oauth"),
        )  # fmt: skip

    async def register(self, ask: Ask) -> Reply:
        """POST /v1/oauth/clients."""
        wanted, caller = ask.body(OAuthClientRequest), ask.principal
        tenant = wanted.tenant or caller.tenant
        if caller.tenant not in {tenant, FLEET_TENANT}:
            raise NotYours(f"{caller.id!r} is of tenant {caller.tenant!r} and registers clients of no other")
        asks = Principal(
            id=wanted.name,
            tenant=tenant,
            roles=frozenset(wanted.roles),
            scopes=None if wanted.scopes is None else frozenset(wanted.scopes),
            groups=frozenset(wanted.groups),
        )
        _check_has(caller, asks)
        row, secret = await self._server.clients.register(wanted.name, asks, jwk=wanted.jwk, by=caller.id)
        return model(_view(row, secret), 201)

    async def listing(self, ask: Ask) -> Reply:
        """GET /v1/oauth/clients."""
        return listing([_view(row) for row in self._server.clients.listing(_of(ask.principal))])

    async def revoke(self, ask: Ask) -> Reply:
        """DELETE /v1/oauth/clients/{id}."""
        await self._server.clients.revoke(ask.path["id"], _of(ask.principal))
        return Reply(b"", 204)

    async def rotate(self, ask: Ask) -> Reply:
        """POST /v1/oauth/clients/{id}/rotate."""
        wanted = ask.body(OAuthRotateRequest)
        _check_has(ask.principal, self._server.clients.whom(ask.path["id"], _of(ask.principal)))
        row, secret = await self._server.clients.rotate(
            ask.path["id"], _of(ask.principal), overlap_s=wanted.overlap_s, jwk=wanted.jwk
        )
        return model(_view(row, secret))

    async def rotate_keys(self, ask: Ask) -> Reply:
        """POST /v1/oauth/keys/rotate. The keys are all tenants', so only the fleet's own may."""
        if ask.principal.tenant != FLEET_TENANT:
            raise NotYours(f"the signing keys are the whole fleet's, which tenant {FLEET_TENANT!r} runs")
        return model(OAuthKeysView(kid=await self._server.keys.rotate(withdraw=ask.body(OAuthKeysRequest).withdraw)))


def _check_has(caller: Principal, client: Principal) -> None:
    """Also for a new secret: whoever sees it can be that client."""
    if beyond := sorted(scopes_of(client) - scopes_of(caller)):
        raise NotYours(f"{caller.id!r} does not have the scope {beyond[0]} and cannot give it to a client")


def _of(principal: Principal) -> str | None:
    """The tenant whose clients this principal sees; None: all."""
    return None if principal.tenant == FLEET_TENANT else principal.tenant


def _view(row: ClientRow, secret: str | None = None) -> OAuthClientView:
    return OAuthClientView(
        client_id=row.id,
        name=row.name,
        tenant=row.tenant,
        roles=row.roles.split(),
        scopes=None if row.scopes is None else row.scopes.split(),
        groups=row.groups.split(),
        authentication="client_secret" if row.jwk_json is None else "private_key_jwt",
        created_at=row.created_at,
        created_by=row.created_by,
        revoked_at=row.revoked_at,
        client_secret=secret,
    )
