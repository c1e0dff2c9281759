"""API keys, sessions and tenants over HTTP, on a real ledger, as a stranger would use them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.identity.challenges import signed
from orchestrator.ledger.shelves import KeyRows
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import Story
from tasks.testing.clock import FakeClock

OPERATOR = "the-fleets-own-token"


@asynccontextmanager
async def opened(folder: Path, clock: FakeClock) -> AsyncIterator[httpx.AsyncClient]:
    """A leader on the ledger of this folder, and a client without credentials."""
    story = await Story.begin(folder, clock)
    core = story.core
    core.keys.restore(await KeyRows(core.stores.ledger).all())
    app = app_of(core, OPERATOR)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8700") as http:
        yield http
    await story.end()


@pytest.fixture
async def http(tmp_path: Path, clock: FakeClock) -> AsyncIterator[httpx.AsyncClient]:
    """One fleet's API."""
    async with opened(tmp_path, clock) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    """As a header."""
    return {"Authorization": f"Bearer {token}"}


async def made(http: httpx.AsyncClient, token: str = OPERATOR, **body: object) -> dict[str, str]:
    """A new key's answer."""
    wanted = {"name": "k", "roles": ["agent"], **body}
    answer = await http.post("/v1/keys", json=wanted, headers=bearer(token))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_key_opens_what_its_role_may(http: httpx.AsyncClient) -> None:
    """And says who it is; it is shown once, and never listed."""
    key = await made(http, principal="ci")
    me = (await http.get("/v1/whoami", headers=bearer(key["key"]))).json()
    assert (me["id"], me["tenant"], me["roles"], me["credential"]) == ("ci", "default", ["agent"], f"key:{key['id']}")
    refused = await http.get("/v1/keys", headers=bearer(key["key"]))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "keys:read" in refused.json()["detail"]
    listed = await http.get("/v1/keys", headers=bearer(OPERATOR))
    assert key["key"] not in listed.text
    assert [one["id"] for one in listed.json()["items"]] == [key["id"]]


async def test_a_key_outlives_its_orchestrator(tmp_path: Path, clock: FakeClock) -> None:
    """It is in the ledger before its maker hears of it."""
    async with opened(tmp_path, clock) as before:
        key = await made(before)
    async with opened(tmp_path, clock) as after:
        assert (await after.get("/v1/whoami", headers=bearer(key["key"]))).status_code == 200


async def test_a_holder_replaces_his_key(http: httpx.AsyncClient, clock: FakeClock) -> None:
    """Early it is refused, then both work; who shows no key has none to replace."""
    key = await made(http, roles=["developer"])
    early = await http.post("/v1/keys:rotate", headers=bearer(key["key"]))
    assert (early.status_code, early.json()["code"]) == (409, "key_not_due")
    clock.advance(28 * 86_400.0)
    successor = (await http.post("/v1/keys:rotate", headers=bearer(key["key"]))).json()
    for one in (key["key"], successor["key"]):
        assert (await http.get("/v1/whoami", headers=bearer(one))).status_code == 200
    clock.advance(2 * 86_400.0)
    over = await http.get("/v1/whoami", headers=bearer(key["key"]))
    assert (over.status_code, over.json()["code"]) == (401, "key_expired")
    assert (await http.post("/v1/keys:rotate", headers=bearer(OPERATOR))).status_code == 403


async def test_an_agent_signs_its_way_in(http: httpx.AsyncClient) -> None:
    """connect, nonce, signed nonce, session token; the same answer again opens nothing."""
    private = Ed25519PrivateKey.generate()
    public = base64.urlsafe_b64encode(private.public_key().public_bytes_raw()).rstrip(b"=").decode()
    key = await made(http, principal="bot", public_key=public)
    assert key["key"] is None
    nonce = (await http.post("/v1/auth/challenges", json={"key": key["id"]})).json()["nonce"]
    signature = base64.urlsafe_b64encode(private.sign(signed("127.0.0.1:8700", key["id"], nonce))).decode()
    answer = {"key": key["id"], "nonce": nonce, "signature": signature}
    session = (await http.post("/v1/auth/sessions", json=answer)).json()
    assert (await http.get("/v1/whoami", headers=bearer(session["token"]))).json()["id"] == "bot"
    again = await http.post("/v1/auth/sessions", json=answer)
    assert (again.status_code, again.json()["code"]) == (401, "not_allowed")
    found = await http.get("/v1/audit?action=open_session&decision=allowed", headers=bearer(OPERATOR))
    (row,) = found.json()["items"]
    assert (row["actor"], row["credential"], row["peer"]) == ("bot", f"key:{key['id']}", "127.0.0.1")
    assert session["token"] not in found.text
    await http.delete(f"/v1/keys/{key['id']}", headers=bearer(OPERATOR))
    assert (await http.get("/v1/whoami", headers=bearer(session["token"]))).json()["code"] == "session_over"


async def test_a_tenants_admin_rules_his_tenant_alone(http: httpx.AsyncClient) -> None:
    """He makes keys there, and touches nothing that is shared."""
    ours = await made(http)
    boss = (await made(http, tenant="acme", roles=["admin"]))["key"]
    theirs = await made(http, boss, roles=["developer"])
    assert theirs["tenant"] == "acme"
    seen = (await http.get("/v1/keys", headers=bearer(boss))).json()["items"]
    assert {one["tenant"] for one in seen} == {"acme"}
    for method, path, body in (
        ("POST", "/v1/pauses", {"kind": "pool", "name": "main", "is_paused": True}),
        ("POST", "/v1/enrolments", {"name": "n", "pool": "main", "ttl_s": 60.0}),
        ("POST", "/v1/scale/wind-down", None),
        ("DELETE", f"/v1/keys/{ours['id']}", None),
        ("POST", "/v1/keys", {"name": "k", "roles": ["agent"], "tenant": "default"}),
    ):
        answer = await http.request(method, path, json=body, headers=bearer(boss))
        assert answer.status_code in {403, 404}, (path, answer.text)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"roles": []}, "roles"),
        ({"roles": ["root"]}, "roles.0"),
        ({"roles": ["node"]}, "roles.0"),
        ({"roles": ["agent"], "scopes": []}, "scopes"),
        ({"roles": ["agent"], "scopes": ["everything"]}, "scopes.0"),
        ({"roles": ["agent"], "scopes": ["tools:read", "keys:write"]}, "agent has no keys:write"),
        ({"roles": ["agent"], "networks": ["10.0.0.0/33"]}, "networks.0"),
        ({"roles": ["agent"], "public_key": "short"}, "public_key"),
        ({"roles": ["agent"], "lifetime_s": 1.0}, "lifetime_s"),
        ({"roles": ["agent"], "principal": "a b"}, "principal"),
        ({"roles": ["agent"], "tenant": "../x"}, "tenant"),
    ],
)
async def test_what_a_key_cannot_be_is_said(http: httpx.AsyncClient, body: dict[str, object], says: str) -> None:
    """With the member that is wrong."""
    answer = await http.post("/v1/keys", json={"name": "k", **body}, headers=bearer(OPERATOR))
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
