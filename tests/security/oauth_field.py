"""Where OAuth is attacked: our own server, a foreign issuer, and a door before both."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc.jwk import ECKey

from orchestrator.identity.oauth.bearer import JwtAuthenticator
from orchestrator.identity.oauth.client_auth import ASSERTION_TYPE
from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.seen import Seen
from orchestrator.oauth import OAuth, foreign_tokens
from orchestrator.presented import Presented
from orchestrator.testing.oauth import BASE, FakeIssuer, MemoryBooks, api_of, http_of, oauth_under_test, rules, signed
from tasks.invocation import Principal
from tasks.testing.clock import FakeClock

Claims = dict[str, Any]


@dataclass
class Field:
    """Our own server, a foreign issuer, and the API's door before both."""

    clock: FakeClock
    issuer: FakeIssuer
    oauth: OAuth
    books: MemoryBooks
    door: JwtAuthenticator

    def claims(self, **other: Any) -> Claims:
        """Of a good token of the foreign issuer."""
        now = int(self.clock.wall_s())
        good = {
            "iss": self.issuer.url,
            "sub": "ann",
            "aud": "mcpfleet",
            "iat": now,
            "exp": now + 300,
            "jti": "j1",
            "tenant": "acme",
            "roles": ["developer"],
        }
        return {name: value for name, value in (good | other).items() if value is not None}

    async def shown(self, token: str, certificate: str | None = None) -> Principal | None:
        """What the door says."""
        return await self.door.principal(Presented(token, "192.0.2.1", certificate))

    async def refused(self, token: str, why: str, certificate: str | None = None) -> None:
        """It says no, for that reason."""
        with pytest.raises(BadToken, match=why):
            await self.shown(token, certificate)


async def field_of() -> Field:
    """Both kinds of issuer, on a clock that stands."""
    clock, issuer = FakeClock(), FakeIssuer()
    books = MemoryBooks(clock)
    oauth = await oauth_under_test(clock, books)
    assert oauth.server is not None
    foreign = foreign_tokens([rules(issuer)], [issuer.fetch], clock=clock, seen=Seen())
    door = JwtAuthenticator(audiences=frozenset({BASE}), own=oauth.server.own, foreign=foreign)
    return Field(clock, issuer, oauth, books, door)


def b64(value: bytes | Claims) -> str:
    """Base64url of bytes, or of JSON."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def own_client(field: Field, *roles: str, tenant: str = "acme", **other: Any) -> tuple[str, str]:
    """A registered client and its secret."""
    assert field.oauth.server is not None
    wanted = Principal(id="ci", tenant=tenant, roles=frozenset(roles or {"developer"}), **other)
    row, secret = await field.oauth.server.clients.register("ci", wanted, jwk=None, by="operator")
    return row.id, secret or ""


async def token_of(field: Field, client: tuple[str, str], **form: Any) -> Any:
    """The token endpoint's answer."""
    async with http_of(api_of(field.oauth)) as http:
        data = {"grant_type": "client_credentials", "resource": BASE} | form
        return await http.post("/oauth/token", data=data, auth=client)


async def own_token(field: Field) -> str:
    """A good token of our own server."""
    answer = await token_of(field, await own_client(field))
    return str(answer.json()["access_token"])


async def key_client(field: Field) -> tuple[Callable[[Claims], str], str]:
    """A client with a key of its own; signs assertions with these changes."""
    assert field.oauth.server is not None
    key = ECKey.generate_key("P-256", private=True)
    wanted = Principal(id="ci", tenant="acme", roles=frozenset({"agent"}))
    row, _ = await field.oauth.server.clients.register("ci", wanted, jwk=key.as_dict(private=False), by="operator")
    numbers = iter(range(1000))

    def sign(changes: Claims) -> str:
        now = int(field.clock.wall_s())
        good = {"iss": row.id, "sub": row.id, "aud": BASE, "iat": now, "exp": now + 60, "jti": f"a{next(numbers)}"}
        claims = {name: value for name, value in (good | changes).items() if value is not None}
        return signed(key, claims, typ="JWT")

    return sign, row.id


async def asserted(field: Field, assertion: str) -> Any:
    """The token endpoint's answer to it."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    async with http_of(api_of(field.oauth)) as http:
        return await http.post("/oauth/token", data=form)
