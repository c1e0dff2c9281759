"""What is tried on the built-in authorization server and on its clients' administration: one test per attack.

Each was seen to fail with its control removed.
"""

from __future__ import annotations

import base64
import json
import time

import pytest

from orchestrator.testing.audit import MemoryBook, memory_audit
from orchestrator.testing.oauth import BASE, api_of, http_of, oauth_under_test
from tasks.invocation import Principal
from tasks.testing.clock import FakeClock
from tests.security.oauth_field import Claims, Field, asserted, field_of, key_client, own_client, token_of


@pytest.fixture
async def field() -> Field:
    """Both kinds of issuer."""
    return await field_of()


async def test_revoked_token_and_revoked_client(field: Field) -> None:
    """Both count at once. RFC 7009."""
    client = await own_client(field)
    token = (await token_of(field, client)).json()["access_token"]
    other = (await token_of(field, client)).json()["access_token"]
    assert await field.shown(token)
    async with http_of(api_of(field.oauth)) as http:
        stranger = await own_client(field)
        assert (await http.post("/oauth/revoke", data={"token": token}, auth=stranger)).status_code == 400
        assert await field.shown(token)  # another client's word is not enough
        assert (await http.post("/oauth/revoke", data={"token": token}, auth=client)).status_code == 200
        assert (await http.post("/oauth/revoke", data={"token": "junk"}, auth=client)).status_code == 200
    await field.refused(token, "revoked")
    assert await field.shown(other)
    assert field.oauth.server is not None
    await field.oauth.server.clients.revoke(client[0], None)
    await field.refused(other, "registered")
    assert (await token_of(field, client)).json()["error"] == "invalid_client"


async def test_a_new_leader_knows_what_was_revoked_and_spent(field: Field) -> None:
    """Revocation and replay are in the ledger: a replica that takes over goes on refusing."""
    assert field.oauth.server is not None
    await field.oauth.server.revoked.add("j9", field.clock.wall_s() + 300)
    successor = await oauth_under_test(field.clock, field.books)
    assert successor.server is not None
    assert successor.server.revoked.has("j9")


async def test_scope_escalation(field: Field) -> None:
    """A client gets no scope beyond its registration, and its token no more than it was granted."""
    client = await own_client(field, "admin", scopes=frozenset({"invocations:read", "tools:read"}))
    refused = await token_of(field, client, scope="invocations:read keys:write")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    granted = (await token_of(field, client, scope="tools:read")).json()
    shown = await field.shown(granted["access_token"])
    assert shown is not None
    assert (granted["scope"], shown.scopes) == ("tools:read", {"tools:read"})
    silent = (await token_of(field, client)).json()
    shown = await field.shown(silent["access_token"])
    assert shown is not None
    assert shown.scopes == {"invocations:read", "tools:read"}


async def test_a_target_that_is_not_ours(field: Field) -> None:
    """No token for somebody else's server. RFC 8707, section 2."""
    refused = await token_of(field, await own_client(field), resource="https://bank.example")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"aud": "https://other.example"}, "invalid_client"),
        ({"aud": f"{BASE}/oauth/token"}, "invalid_client"),
        ({"aud": [BASE, "https://other.example"]}, "invalid_client"),
        ({"aud": None}, "invalid_client"),
        ({"iss": "somebody"}, "invalid_client"),
        ({"sub": "client-unknown"}, "invalid_client"),
        ({"jti": None}, "invalid_client"),
        ({"exp": 1_800_000_000 + 600}, "invalid_client"),
        ({"exp": None}, "invalid_client"),
    ],
)
async def test_client_assertions_that_are_wrong(field: Field, changes: Claims, error: str) -> None:
    """Made for another server, by another client, for ever, or without a name. RFC 7523, section 3."""
    sign, client_id = await key_client(field)
    answer = await asserted(field, sign(changes))
    assert (answer.status_code, answer.json()["error"]) == (401, error)
    assert (await asserted(field, sign({}))).status_code == 200, client_id


async def test_client_assertion_of_another_key(field: Field) -> None:
    """Only the registered key speaks for the client."""
    sign, client_id = await key_client(field)
    other, _ = await key_client(field)
    forged = await asserted(field, other({"iss": client_id, "sub": client_id}))
    assert (forged.status_code, forged.json()["error"]) == (401, "invalid_client")
    assert (await asserted(field, sign({}))).status_code == 200


async def test_replayed_client_assertion(field: Field) -> None:
    """An assertion is good once, also at the replica that takes over."""
    sign, _ = await key_client(field)
    assertion = sign({})
    assert (await asserted(field, assertion)).status_code == 200
    again = await asserted(field, assertion)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    field.oauth = await oauth_under_test(field.clock, field.books)
    assert (await asserted(field, assertion)).status_code == 401


async def test_two_ways_to_authenticate_at_once(field: Field) -> None:
    """One way at a time: a proxy that checks the one must not be passed by the other. RFC 6749, section 2.3."""
    client = await own_client(field)
    answer = await token_of(field, client, client_id=client[0], client_secret=client[1])
    assert answer.json()["error"] == "invalid_request"


async def test_wrong_secret_says_no_more_than_unknown_client(field: Field) -> None:
    """Whoever guesses does not learn which clients there are."""
    client = await own_client(field)
    wrong, unknown = await token_of(field, (client[0], "x")), await token_of(field, ("client-0", "x"))
    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
    assert wrong.headers["www-authenticate"].startswith("Basic")


async def test_secrets_are_not_kept(field: Field) -> None:
    """What is in the database lets nobody be a client."""
    _, secret = await own_client(field)
    assert secret not in repr(field.books.client_rows)


async def test_a_narrowed_admin_registers_no_stronger_client(field: Field) -> None:
    """Nobody gives more than they have: not to a new client, and not by taking an existing one's new secret."""
    narrowed = await own_client(field, "admin", tenant="default", scopes=frozenset({"keys:write", "keys:read"}))
    strong = await own_client(field, "admin", tenant="default")
    token = (await token_of(field, narrowed)).json()["access_token"]
    async with http_of(api_of(field.oauth), token) as http:
        made = await http.post("/v1/oauth/clients", json={"name": "x", "roles": ["admin"]})
        taken = await http.post(f"/v1/oauth/clients/{strong[0]}/rotate", json={})
        same = await http.post("/v1/oauth/clients", json={"name": "x", "roles": ["admin"], "scopes": ["keys:read"]})
    assert (made.status_code, taken.status_code, same.status_code) == (403, 403, 201)


async def test_one_tenants_admin_and_anothers_clients(field: Field) -> None:
    """An admin sees, registers, rotates and revokes clients of their own tenant alone, and no signing key."""
    theirs = await own_client(field, tenant="other")
    token = (await token_of(field, await own_client(field, "admin", tenant="acme"))).json()["access_token"]
    async with http_of(api_of(field.oauth), token) as http:
        seen = (await http.get("/v1/oauth/clients")).json()["items"]
        made = await http.post("/v1/oauth/clients", json={"name": "x", "roles": ["agent"], "tenant": "other"})
        turned = await http.post(f"/v1/oauth/clients/{theirs[0]}/rotate", json={})
        ended = await http.delete(f"/v1/oauth/clients/{theirs[0]}")
        keys = await http.post("/v1/oauth/keys/rotate", json={})
    assert {one["tenant"] for one in seen} == {"acme"}
    assert [one.status_code for one in (made, turned, ended, keys)] == [403, 404, 404, 403]


async def test_refused_requests_are_in_the_audit_log_and_a_flood_of_them_is_one_row() -> None:
    """Guessing at the token endpoint leaves a trace, and nothing of what was guessed; it cannot fill the disk."""
    book, clock = MemoryBook(), FakeClock()
    audit = memory_audit(book, clock)
    oauth = await oauth_under_test(clock, refused=audit.refused)
    guess = f"guess-{time.time_ns()}"
    async with http_of(api_of(oauth)) as http:
        for _ in range(5):
            said = await http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(guess, guess))
            assert said.status_code == 401
        assert (await http.post("/oauth/revoke", data={"token": guess}, auth=(guess, guess))).status_code == 401
    rows = [(row.action, row.actor, row.decision, row.peer) for row in book.rows]
    assert rows == [
        ("oauth_token", "anonymous", "refused", "127.0.0.1"),
        ("oauth_revoke", "anonymous", "refused", "127.0.0.1"),
    ]
    assert "invalid_client" in book.rows[0].reason
    clock.advance(61)
    await audit.look()
    assert json.loads(book.rows[2].details_json)["count"] == 4
    assert guess not in repr(book.rows)


async def test_a_token_has_its_row_before_it_is_given() -> None:
    """Who, from where, for which door, with which scopes, under which name; never the token. No row, no token."""
    book, clock = MemoryBook(), FakeClock()
    oauth = await oauth_under_test(clock, granted=memory_audit(book, clock).acted)
    assert oauth.server is not None
    ci = Principal(id="x", tenant="acme", roles=frozenset({"agent"}))
    row, secret = await oauth.server.clients.register("ci", ci, jwk=None, by="op")
    form = {"grant_type": "client_credentials", "scope": "tools:read", "resource": BASE}
    async with http_of(api_of(oauth)) as http:
        token = (await http.post("/oauth/token", data=form, auth=(row.id, secret or ""))).json()["access_token"]
        book.is_down = True
        refused = await http.post("/oauth/token", data=form, auth=(row.id, secret or ""))
    assert (refused.status_code, "access_token" in refused.json()) == (503, False)
    kept = book.rows[0]
    assert (kept.actor, kept.tenant, kept.action, kept.decision, kept.target, kept.peer) == (
        row.id, "acme", "oauth_token", "allowed", "ci", "127.0.0.1",
    )  # fmt: skip
    details = json.loads(kept.details_json)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (details["jti"], details["scopes"], details["audience"]) == (claims["jti"], "tools:read", BASE)
    for part in (*token.split("."), secret or "none"):
        assert part not in repr(book.rows)
