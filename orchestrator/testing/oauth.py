"""OAuth for tests: books in memory, an issuer that is not there, and both doors of a fleet behind them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from starlette.applications import Starlette

from orchestrator.api.settings import ApiSettings
from orchestrator.identity.oauth.endpoints import Told, unaudited
from orchestrator.identity.oauth.fetch import NotFetched
from orchestrator.identity.oauth.issuer import Issuer
from orchestrator.identity.tokens import digest
from orchestrator.ledger.oauth_values import ClientRow, SigningKeyRow, SpentRow
from orchestrator.oauth import OAuth, oauth_of
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import fake_app
from tasks.clock import Clock

BASE = "https://fleet.example"
PrivateKey = ECKey | RSAKey | OKPKey


class MemoryBooks:
    """`Ledger.oauth`, in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.client_rows: dict[str, ClientRow] = {}
        self.key_rows: dict[str, SigningKeyRow] = {}
        self.spent_rows: dict[tuple[str, str], SpentRow] = {}

    async def clients(self) -> list[ClientRow]:
        """All."""
        return list(self.client_rows.values())

    async def save_client(self, row: ClientRow) -> None:
        """Keep it."""
        self.client_rows[row.id] = row

    async def keys(self) -> list[SigningKeyRow]:
        """All."""
        return list(self.key_rows.values())

    async def save_key(self, row: SigningKeyRow, forget: Sequence[str] = ()) -> None:
        """Keep it."""
        self.key_rows[row.kid] = row
        await self.forget_keys(forget)

    async def forget_keys(self, kids: Sequence[str]) -> None:
        """Delete them."""
        for kid in kids:
            self.key_rows.pop(kid, None)

    async def spend(self, row: SpentRow) -> bool:
        """Spend it, once."""
        now_s = self._clock.wall_s()
        self.spent_rows = {name: one for name, one in self.spent_rows.items() if one.expires_at >= now_s}
        is_new = (row.kind, row.id) not in self.spent_rows
        self.spent_rows.setdefault((row.kind, row.id), row)
        return is_new

    async def spent(self, kind: str) -> list[SpentRow]:
        """Of one kind."""
        return [row for row in self.spent_rows.values() if row.kind == kind]


@dataclass
class FakeIssuer:
    """An OpenID issuer: its keys, its documents by URL, and how often it was asked."""

    url: str = "https://issuer.example/realms/acme"
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_down: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.keys:
            self.keys["k1"] = ECKey.generate_key("P-256", private=True)

    async def fetch(self, url: str) -> dict[str, Any]:
        """GET. Raises NotFetched."""
        self.asked.append(url)
        if self.is_down:
            raise NotFetched("ConnectError")
        if url == f"{self.url}/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | self.metadata
        if url == f"{self.url}/keys":
            return {"keys": [{**key.as_dict(private=False), "kid": kid} for kid, key in self.keys.items()]}
        raise NotFetched("it answered 404")

    def token(self, claims: dict[str, Any], *, kid: str = "k1", **header: Any) -> str:  # noqa: ANN401 - of a header
        """Signed with that key."""
        return signed(self.keys[kid], claims, kid=kid, **header)


def signed(key: PrivateKey, claims: dict[str, Any], **header: Any) -> str:  # noqa: ANN401 - of a header
    """A JWS; ES256 and `at+jwt` where the header does not say."""
    given = {"alg": "ES256", "typ": "at+jwt"} | header
    protected = {name: value for name, value in given.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=[str(protected["alg"])], strict_check_header=False)
    return jws.serialize_compact(protected, json.dumps(claims).encode(), key, registry=registry)


def rules(issuer: FakeIssuer, **other: Any) -> Issuer:  # noqa: ANN401 - of an Issuer
    """What an operator writes of it."""
    return Issuer(**{"name": "acme", "issuer": issuer.url, "audiences": ("mcpfleet",)} | other)


def settings_of(**other: Any) -> OrchestratorSettings:  # noqa: ANN401 - of the settings
    """With the server on, at `BASE`."""
    given = {"token": digest(str(time.time_ns())), "join_token": digest(f"j{time.time_ns()}")}
    return OrchestratorSettings.model_validate(given | {"public_url": BASE, "oauth_server": True} | other)


async def oauth_under_test(
    clock: Clock,
    books: MemoryBooks | None = None,
    *,
    refused: Told = unaudited,
    granted: Told = unaudited,
    **other: Any,  # noqa: ANN401 - of the settings
) -> OAuth:
    """Leading, with a key that signs, in memory."""
    oauth = oauth_of(
        settings_of(**other),
        address="127.0.0.1:1",
        books=books or MemoryBooks(clock),
        sealer=None,
        clock=clock,
        refused=refused,
        granted=granted,
    )
    await oauth.restore()
    return oauth


def api_of(oauth: OAuth) -> Starlette:
    """The HTTP API over fakes, with OAuth's routes and challenge."""
    return fake_app(FakeFleet(), ApiSettings(resource_metadata=oauth.api.metadata_url), oauth=oauth)


def http_of(app: Starlette, token: str | None = None) -> httpx.AsyncClient:
    """A client of it, without a socket."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers)
