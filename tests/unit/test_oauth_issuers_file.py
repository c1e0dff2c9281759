"""The operator's file of issuers: what it may say, and what a token's claims mean by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.identity.oauth.issuer import Issuer, principal_of
from orchestrator.oauth import oauth_of
from orchestrator.oauth_issuers import read_issuers
from orchestrator.testing.oauth import BASE, MemoryBooks, settings_of
from tasks.errors import SettingsError
from tasks.testing.clock import FakeClock

KEYCLOAK = """
[issuers.acme]
issuer = "https://sso.example.com/realms/acme"
audiences = ["mcpfleet"]
types = ["JWT"]
tenant = "acme"
roles_claim = "realm_access.roles"
roles = { fleet-admin = "admin", dev = "developer" }
"""


def written(tmp_path: Path, text: str) -> Path:
    """The file."""
    path = tmp_path / "oauth.toml"
    path.write_text(text)
    return path


def test_a_keycloak_realm(tmp_path: Path) -> None:
    """Roles are in an object, under other names; others than ours are nothing here."""
    (issuer,) = read_issuers(written(tmp_path, KEYCLOAK))
    claims = {"sub": "7", "realm_access": {"roles": ["dev", "offline_access", "admin"]}, "scope": "openid email"}
    found = principal_of(issuer, claims)
    assert (found.id, found.tenant, found.roles, found.scopes) == ("acme:7", "acme", {"developer"}, None)


@pytest.mark.parametrize(
    ("rules", "claims", "scopes"),
    [
        ({}, {"scope": "openid tools:read"}, {"tools:read"}),
        ({}, {"scope": ["tools:read", "invocations:read"]}, {"tools:read", "invocations:read"}),
        ({}, {"scope": "openid"}, None),
        ({}, {}, None),
        ({"is_scope_needed": True}, {"scope": "openid"}, set()),
        ({"is_scope_needed": True}, {}, set()),
        ({"scope_claim": "scp"}, {"scp": ["tools:read"], "scope": "keys:write"}, {"tools:read"}),
    ],
)
def test_scopes(rules: dict[str, Any], claims: dict[str, Any], scopes: set[str] | None) -> None:
    """Scopes of ours narrow; where they are needed, none of them is nothing at all."""
    issuer = Issuer("a", "https://a.example", tenant="acme", **rules)
    assert principal_of(issuer, {"sub": "x", "roles": "agent", **claims}).scopes == scopes


def test_claims_with_dots_in_their_name() -> None:
    """Auth0 and others name claims by URLs; the claim of that very name comes first."""
    issuer = Issuer("a", "https://a.example", tenant_claim="https://x.example/tenant", groups_claim="g")
    found = principal_of(issuer, {"sub": "x", "https://x.example/tenant": "acme", "g": "blue team"})
    assert (found.tenant, found.groups) == ("acme", {"blue team"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[issuers.a]\n", "issuer is missing"),
        ('[issuers.a]\nissuer = "http://sso.example.com"\n', "https"),
        ('[issuers.a]\nissuer = "https://a.example"\naudience = ["x"]\n', "is not a setting"),
        ('[issuers.a]\nissuer = "https://a.example"\nalgorithms = ["HS256"]\n', "HS256"),
        ('[issuers.a]\nissuer = "https://a.example"\nroles = { x = "node" }\n', "node"),
        ('[issuers.a]\nissuer = "https://a.example"\ntenant = "A B"\n', "tenant"),
        ('[issuers."A B"]\nissuer = "https://a.example"\n', "name"),
        ('[issuers.a]\nissuer = "https://a.example"\n[issuers.b]\nissuer = "https://a.example"\n', "twice"),
        ('[isuers.a]\nissuer = "https://a.example"\n', "isuers"),
        ("no", "cannot be read"),
    ],
)
def test_what_is_wrong_stops_the_start(tmp_path: Path, text: str, why: str) -> None:
    """With the file, the place in it, and what to write."""
    with pytest.raises(SettingsError, match=why):
        read_issuers(written(tmp_path, text))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"public_url": "http://fleet.example"}, "MCPFLEET_PUBLIC_URL"),
        ({"oauth_file": "itself"}, "itself"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, other: dict[str, Any], why: str) -> None:
    """Tokens bound to a URL that can be read on the way, and a server that is its own foreign issuer."""
    if "oauth_file" in other:
        other = {"oauth_file": written(tmp_path, f'[issuers.a]\nissuer = "{BASE}"\n')}
    clock = FakeClock()
    with pytest.raises(SettingsError, match=why):
        oauth_of(settings_of(**other), address="x:1", books=MemoryBooks(clock), sealer=None, clock=clock)
