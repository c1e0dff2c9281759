"""OAuth put together: our doors as resources, the issuers that the operator trusts, and the built-in server.

Everything is made here once. `restore` is called by whoever begins to lead, before a door opens.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx
from starlette.routing import BaseRoute

from orchestrator.identity.oauth.bearer import ForeignTokens, JwtAuthenticator
from orchestrator.identity.oauth.client_auth import ClientAuth
from orchestrator.identity.oauth.clients import Clients, ClientStore
from orchestrator.identity.oauth.endpoints import Endpoints, Told, resource_routes, unaudited
from orchestrator.identity.oauth.fetch import Fetch, fetch_with, is_safe
from orchestrator.identity.oauth.grant import Server
from orchestrator.identity.oauth.issuer import Issuer
from orchestrator.identity.oauth.own import OwnTokens
from orchestrator.identity.oauth.remote_keys import RemoteKeys
from orchestrator.identity.oauth.resource import Resource
from orchestrator.identity.oauth.revoked import Revoked, RevokedStore
from orchestrator.identity.oauth.schedule import Terms
from orchestrator.identity.oauth.seen import Seen
from orchestrator.identity.oauth.signing import KeyStore, Sealer, SigningKeys
from orchestrator.limits import scheme_of
from orchestrator.oauth_issuers import read_issuers
from orchestrator.presented import CERTIFICATE_KEY
from orchestrator.settings import OrchestratorSettings
from tasks.clock import Clock
from tasks.errors import SettingsError

MCP_PATH = "/mcp"
TEND_EVERY_S = 60.0
_DAY_S = 86_400.0


class Books(ClientStore, KeyStore, RevokedStore, Protocol):
    """`Ledger.oauth`."""


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """The built-in one."""

    keys: SigningKeys
    clients: Clients
    revoked: Revoked
    endpoints: Endpoints
    own: OwnTokens


@dataclass(frozen=True, slots=True)
class OAuth:
    """What the rest works with.

    Attributes:
        at_api: JWTs at the HTTP API.
        at_mcp: JWTs at the MCP door.
        api: the HTTP API as a resource.
        mcp: the MCP door as a resource.
        server: None where it is off.
    """

    at_api: JwtAuthenticator
    at_mcp: JwtAuthenticator
    api: Resource
    mcp: Resource
    server: AuthorizationServer | None
    _foreign: tuple[ForeignTokens, ...] = ()
    _clients: tuple[httpx.AsyncClient, ...] = field(default=(), repr=False)

    def routes(self) -> list[BaseRoute]:
        """Metadata of the doors, and the server's endpoints. They guard themselves."""
        return [*resource_routes((self.api, self.mcp)), *(self.server.endpoints.routes() if self.server else ())]

    async def restore(self) -> None:
        """This orchestrator leads now. Raises LedgerDown, EpochLost."""
        if self.server is not None:
            await self.server.clients.restore()
            await self.server.revoked.restore()
            await self.server.keys.restore()

    async def tend(self) -> None:
        """Rotate keys that are due; every `TEND_EVERY_S`, by whoever leads."""
        if self.server is not None:
            await self.server.keys.tend()

    async def close(self) -> None:
        """Ask no issuer any more."""
        for one in self._foreign:
            await one.close()
        for client in self._clients:
            await client.aclose()


def oauth_of(
    settings: OrchestratorSettings,
    *,
    address: str,
    books: Books,
    sealer: Sealer | None,
    clock: Clock,
    refused: Told = unaudited,
    granted: Told = unaudited,
) -> OAuth:
    """Make it.

    Args:
        settings: as read.
        address: HOST:PORT of the doors, where no public URL is set.
        books: the ledger's part.
        sealer: the key ring; None: signing keys are in memory only.
        clock: wall time for tokens, monotonic for key sets.
        refused: told of requests to the built-in server that it refuses,
        granted: and of tokens that it is about to give.

    Raises:
        SettingsError: the issuers' file is wrong, or the public URL is.
    """
    base = (settings.public_url or f"{scheme_of(settings)}://{address}").rstrip("/")
    issuers = read_issuers(settings.oauth_file)
    if settings.oauth_server or issuers:
        _check(base, issuers, is_serving=settings.oauth_server)
    seen = Seen()
    clients = tuple(_client(one) for one in issuers)
    foreign = foreign_tokens(issuers, [fetch_with(client) for client in clients], clock=clock, seen=seen)
    names = (*([base] if settings.oauth_server else ()), *(one.issuer for one in issuers))
    api, mcp = Resource(base, names), Resource(base + MCP_PATH, names)
    server = (
        _server(settings, base, (api.url, mcp.url), books, sealer, clock, seen, refused, granted)
        if settings.oauth_server
        else None
    )
    own = None if server is None else server.own
    return OAuth(
        at_api=JwtAuthenticator(audiences=frozenset({api.url}), own=own, foreign=foreign),
        at_mcp=JwtAuthenticator(audiences=frozenset({mcp.url}), own=own, foreign=foreign),
        api=api,
        mcp=mcp,
        server=server,
        _foreign=foreign,
        _clients=clients,
    )


def foreign_tokens(
    issuers: Sequence[Issuer], fetches: Sequence[Fetch], *, clock: Clock, seen: Seen
) -> tuple[ForeignTokens, ...]:
    """One for each issuer."""
    return tuple(
        ForeignTokens(one, RemoteKeys(one.issuer, fetch, clock), clock=clock, seen=seen)
        for one, fetch in zip(issuers, fetches, strict=True)
    )


def _server(  # noqa: PLR0917 - one part, and everything it needs
    settings: OrchestratorSettings,
    issuer: str,
    resources: tuple[str, ...],
    books: Books,
    sealer: Sealer | None,
    clock: Clock,
    seen: Seen,
    refused: Told,
    granted: Told,
) -> AuthorizationServer:
    terms = Terms(settings.oauth_token_s, settings.oauth_rotate_days * _DAY_S, settings.oauth_publish_s)
    keys = SigningKeys(store=books, sealer=sealer, clock=clock, terms=terms)
    clients = Clients(store=books, clock=clock)
    revoked = Revoked(store=books, clock=clock)
    own = OwnTokens(issuer=issuer, keys=keys, clients=clients, revoked=revoked, clock=clock, seen=seen)
    endpoints = Endpoints(
        server=Server(issuer, resources, settings.oauth_token_s),
        auth=ClientAuth(clients=clients, spent=books, issuer=issuer, clock=clock),
        keys=keys,
        own=own,
        revoked=revoked,
        certificate=lambda scope: scope.get(CERTIFICATE_KEY),
        clock=clock,
        refused=refused,
        granted=granted,
    )
    return AuthorizationServer(keys, clients, revoked, endpoints, own)


def _check(base: str, issuers: Sequence[Issuer], *, is_serving: bool) -> None:
    if not is_safe(base):
        raise SettingsError(
            f"MCPFLEET_PUBLIC_URL is {base!r}: tokens are bound to it, so write the https URL by which clients reach "
            "the doors (http only on this machine itself)"
        )
    if is_serving and any(one.issuer == base for one in issuers):
        raise SettingsError(f"MCPFLEET_OAUTH_FILE names {base}, which is this server itself: leave it out")


def _client(issuer: Issuer) -> httpx.AsyncClient:
    try:
        verify = ssl.create_default_context(cafile=issuer.ca_file) if issuer.ca_file else True
    except OSError as error:
        raise SettingsError(f"issuers.{issuer.name}.ca_file is {issuer.ca_file!r}: {error}") from error
    return httpx.AsyncClient(verify=verify, trust_env=False, follow_redirects=False)
