"""The standard MCP client's client-credentials providers against our door and our authorization server, unchanged.

Everything is found by discovery: 401, the door's metadata, the server's metadata, the token. Over a real socket.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthTokenError
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from orchestrator.front.app import McpFront
from orchestrator.identity.doors import Authenticators
from orchestrator.oauth import AuthorizationServer
from orchestrator.testing.front import SETTINGS, Toolbox
from orchestrator.testing.inprocess_fleet import InProcessFleet
from orchestrator.testing.oauth import oauth_under_test
from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.invocation import Principal

WITHIN_S = 60.0
DEVELOPER = Principal(id="ci", tenant="acme", roles=frozenset({"developer"}))


class Kept:
    """A TokenStorage that keeps its token in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """What it has."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep them."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """None: clients are registered by the operator."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Never asked."""


@dataclass
class Site:
    """A door, its authorization server and its URL."""

    base: str
    server: AuthorizationServer
    fleet: InProcessFleet

    @property
    def mcp(self) -> str:
        """The endpoint."""
        return f"{self.base}/mcp"


class _Later:
    """An app that is made when its address is known."""

    app: Starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI, without a lifespan of its own."""
        if scope["type"] == "http":
            await self.app(scope, receive, send)


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Serving on a loopback port, whose URL is the issuer and the audience."""
    later, tools, clock = _Later(), Toolbox(), SystemClock()
    async with serving(later) as base:
        oauth = await oauth_under_test(clock, public_url=base)
        assert oauth.server is not None
        fleet = InProcessFleet(tools.specs(), tools.run)
        settings = replace(SETTINGS, resource_metadata=oauth.mcp.metadata_url, inline_window_s=10.0)
        front = McpFront(fleet, Authenticators([oauth.at_mcp]), settings)
        later.app = Starlette(routes=[*front.routes(), *oauth.routes()])
        async with front.running():
            yield Site(base, oauth.server, fleet)


async def called(site: Site, auth: OAuthClientProvider) -> Any:
    """The answer of one tool."""
    async with (
        httpx2.AsyncClient(auth=auth, timeout=WITHIN_S, trust_env=False) as http,
        Client(streamable_http_client(site.mcp, http_client=http), mode="auto") as client,
    ):
        return await client.call_tool("t.echo", {"a": 1})


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_client_with_a_secret(method: Any) -> None:
    """It finds its way from a 401 to a tool's answer, as the client that it is."""
    async with site() as it:
        row, secret = await it.server.clients.register("ci", DEVELOPER, jwk=None, by="operator")
        kept = Kept()
        auth = ClientCredentialsOAuthProvider(it.mcp, kept, row.id, secret or "", method, issuer=it.base)
        answer = await called(it, auth)
        assert not answer.is_error
        assert kept.tokens is not None
        assert (kept.tokens.token_type, kept.tokens.expires_in) == ("Bearer", 300)
        (known,) = it.fleet._known.values()
        assert (known.principal.id, known.principal.tenant) == (row.id, "acme")


async def test_client_with_a_key() -> None:
    """The same by an assertion that the SDK signs, as long as the SDK makes them."""
    key = ECKey.generate_key("P-256", private=True)
    async with site() as it:
        row, _ = await it.server.clients.register("ci", DEVELOPER, jwk=key.as_dict(private=False), by="operator")
        signing = SignedJWTParameters(
            issuer=row.id, subject=row.id, signing_key=key.as_pem(private=True).decode(), signing_algorithm="ES256"
        )
        auth = PrivateKeyJWTOAuthProvider(it.mcp, Kept(), row.id, signing.create_assertion_provider(), issuer=it.base)
        assert not (await called(it, auth)).is_error


async def test_a_revoked_client_is_refused() -> None:
    """Its next token is not given, and the client is told why."""
    async with site() as it:
        row, secret = await it.server.clients.register("ci", DEVELOPER, jwk=None, by="operator")
        await it.server.clients.revoke(row.id, None)
        auth = ClientCredentialsOAuthProvider(it.mcp, Kept(), row.id, secret or "", issuer=it.base)
        with pytest.RaisesGroup(
            pytest.RaisesExc(OAuthTokenError, match="invalid_client"), flatten_subgroups=True, allow_unwrapped=True
        ):
            await called(it, auth)


async def test_a_client_of_another_issuer_sends_its_secret_nowhere() -> None:
    """Who names its issuer is not led to ours."""
    async with site() as it:
        auth = ClientCredentialsOAuthProvider(it.mcp, Kept(), "x", "y", issuer="https://other.example")
        with pytest.RaisesGroup(OAuthFlowError, flatten_subgroups=True, allow_unwrapped=True):
            await called(it, auth)
