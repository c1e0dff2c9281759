"""What is tried on the OAuth doors, and what must become of it: one test per attack.

Each was seen to fail with its control removed. Tokens are of our own server or of a foreign issuer, whichever
the attack would choose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from orchestrator.identity.oauth.bearer import JwtAuthenticator
from orchestrator.identity.oauth.client_auth import ASSERTION_TYPE
from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.seen import Seen
from orchestrator.oauth import OAuth, foreign_tokens
from orchestrator.presented import Presented
from orchestrator.testing.oauth import BASE, FakeIssuer, MemoryBooks, api_of, http_of, oauth_under_test, rules, signed
from tasks.invocation import Principal
from tasks.testing.clock import FakeClock

MCP = f"{BASE}/mcp"
TWICE = b'{"alg":"ES256","kid":"k1","alg":"none"}'
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


@pytest.fixture
async def field() -> Field:
    """Both kinds of issuer."""
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
    async with http_of(api_of(field.oauth, field.clock)) as http:
        data = {"grant_type": "client_credentials", "resource": BASE} | form
        return await http.post("/oauth/token", data=data, auth=client)


async def own_token(field: Field) -> str:
    """A good token of our own server."""
    answer = await token_of(field, await own_client(field))
    return str(answer.json()["access_token"])


async def test_good_tokens_pass(field: Field) -> None:
    """The other tests refuse for their own reason: what is right opens the door."""
    foreign = await field.shown(field.issuer.token(field.claims()))
    assert foreign is not None
    assert (foreign.id, foreign.tenant, foreign.roles) == ("acme:ann", "acme", {"developer"})
    own = await field.shown(await own_token(field))
    assert own is not None
    assert (own.tenant, own.roles, own.scopes) == ("acme", {"developer"}, None)


async def test_alg_none(field: Field) -> None:
    """A token without a signature is nobody's. RFC 8725, section 3.1."""
    for name in ("none", "None", "NONE"):
        token = f"{b64({'alg': name, 'typ': 'at+jwt', 'kid': 'k1'})}.{b64(field.claims())}."
        await field.refused(token, "algorithm")


async def test_hs256_with_the_public_key(field: Field) -> None:
    """The public key is no shared secret. RFC 8725, section 2.1."""
    public = field.issuer.keys["k1"].as_pem(private=False)
    head = f"{b64({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'k1'})}.{b64(field.claims())}"
    token = f"{head}.{b64(hmac.new(public, head.encode(), hashlib.sha256).digest())}"
    await field.refused(token, "algorithm")


async def test_a_key_is_good_for_its_own_algorithm(field: Field) -> None:
    """A key set says what each key is for: an RSA key for RS256 signs no PS256."""
    key = RSAKey.generate_key(2048, private=True)
    field.issuer.keys["r1"] = RSAKey.import_key({**key.as_dict(private=True), "alg": "RS256"})
    assert await field.shown(signed(key, field.claims(), alg="RS256", kid="r1"))
    await field.refused(signed(key, field.claims(), alg="PS256", kid="r1"), "another algorithm")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "another"}, "audience"),
        ({"aud": ["another", "mcpfleet2"]}, "audience"),
        ({"aud": "mcpfleet/"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": {"mcpfleet": 1}}, "audience"),
        ({"exp": None}, "exp"),
        ({"exp": "1900000000"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1_800_000_000 + 86_400}, "longer"),
        ({"exp": 1_800_000_000 - 60, "iat": 1_800_000_000 - 120}, "expired"),
        ({"iat": None}, "iat"),
        ({"iat": 1_800_000_000 + 60}, "not good yet"),
        ({"nbf": 1_800_000_000 + 60}, "not good yet"),
        ({"iss": "https://issuer.example/realms/other"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ["https://issuer.example/realms/acme"]}, "issuer"),
        ({"tenant": None}, "tenant"),
        ({"tenant": "Acme; DROP"}, "tenant"),
        ({"sub": None}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"cnf": {"jkt": "x"}}, "cnf"),
        ({"cnf": {"x5t#S256": "x", "jkt": "y"}}, "cnf"),
        ({"cnf": []}, "cnf"),
    ],
)
async def test_claims_that_are_missing_or_wrong(field: Field, changes: Claims, why: str) -> None:
    """Signed well, and still not for us, not now, or of nobody."""
    await field.refused(field.issuer.token(field.claims(**changes)), why)


async def test_one_doors_token_at_another(field: Field) -> None:
    """A token for the MCP door does not open the API, nor the other way round. RFC 8707."""
    client = await own_client(field)
    at_mcp = (await token_of(field, client, resource=MCP)).json()["access_token"]
    at_api = (await token_of(field, client, resource=BASE)).json()["access_token"]
    shown = [Presented(at_mcp), Presented(at_api)]
    with pytest.raises(BadToken, match="audience"):
        await field.oauth.at_api.principal(shown[0])
    with pytest.raises(BadToken, match="audience"):
        await field.oauth.at_mcp.principal(shown[1])
    assert await field.oauth.at_mcp.principal(shown[0])
    assert await field.oauth.at_api.principal(shown[1])


async def test_another_kind_of_jwt_as_an_access_token(field: Field) -> None:
    """An ID token, or anything else that our own key might sign, is no access token. RFC 8725, section 3.11."""
    assert field.oauth.server is not None
    (key,) = field.oauth.server.keys._keys.values()
    claims = json.loads(base64.urlsafe_b64decode((await own_token(field)).split(".")[1] + "=="))
    assert await field.shown(signed(key.private, claims, kid=key.kid))
    for kind in ({"typ": "JWT"}, {"typ": "id_token+jwt"}, {"typ": None}):
        await field.refused(signed(key.private, claims, kid=key.kid, **kind), "type")


async def test_foreign_issuer_with_the_same_kid(field: Field) -> None:
    """Whoever runs one issuer cannot speak for another by choosing its key's name."""
    other = FakeIssuer("https://other.example", {"k1": ECKey.generate_key("P-256", private=True)})
    foreign = foreign_tokens(
        [rules(field.issuer), rules(other, name="other")],
        [field.issuer.fetch, other.fetch],
        clock=field.clock,
        seen=Seen(),
    )
    field.door = JwtAuthenticator(audiences=frozenset({BASE}), own=None, foreign=foreign)
    assert await field.shown(field.issuer.token(field.claims()))
    await field.refused(other.token(field.claims()), "signature")


async def test_an_issuer_speaks_for_its_own_tenants(field: Field) -> None:
    """A token that names a tenant of somebody else's is refused; a fixed tenant is never the token's to choose."""
    foreign = foreign_tokens(
        [rules(field.issuer, tenants=("acme",))], [field.issuer.fetch], clock=field.clock, seen=Seen()
    )
    field.door = JwtAuthenticator(audiences=frozenset(), own=None, foreign=foreign)
    assert await field.shown(field.issuer.token(field.claims()))
    await field.refused(field.issuer.token(field.claims(tenant="default")), "tenant")
    foreign = foreign_tokens([rules(field.issuer, tenant="acme")], [field.issuer.fetch], clock=field.clock, seen=Seen())
    field.door = JwtAuthenticator(audiences=frozenset(), own=None, foreign=foreign)
    shown = await field.shown(field.issuer.token(field.claims(tenant="default")))
    assert shown is not None
    assert shown.tenant == "acme"


async def test_our_own_token_with_another_tenant(field: Field) -> None:
    """A client's tenant is in its registration: a token that says another one is refused, whoever signed it."""
    assert field.oauth.server is not None
    (key,) = field.oauth.server.keys._keys.values()
    claims = json.loads(base64.urlsafe_b64decode((await own_token(field)).split(".")[1] + "=="))
    await field.refused(signed(key.private, claims | {"tenant": "default"}, kid=key.kid), "tenant")


async def test_a_token_makes_nobody_a_node(field: Field) -> None:
    """Roles of nodes come with a node's own credential: an issuer cannot give them, nor can a client have them."""
    shown = await field.shown(field.issuer.token(field.claims(roles=["node", "join", "enrol", "agent"])))
    assert shown is not None
    assert shown.roles == {"agent"}
    with pytest.raises(Exception, match="cannot have the role"):
        await own_client(field, "node")


async def test_token_bound_to_another_certificate(field: Field) -> None:
    """A bound token is of no use without its certificate. RFC 8705, section 3."""
    token = field.issuer.token(field.claims(cnf={"x5t#S256": "mine"}))
    assert await field.shown(token, "mine")
    await field.refused(token, "certificate", "anothers")
    await field.refused(token, "certificate")


async def test_keys_named_by_the_token_are_not_looked_at(field: Field) -> None:
    """`jku`, `x5u` and `jwk` lead nowhere: no request is made, and the key is the issuer's. RFC 8725, section 3.10."""
    evil = ECKey.generate_key("P-256", private=True)
    assert await field.shown(field.issuer.token(field.claims()))
    asked = list(field.issuer.asked)
    for header in (
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": evil.as_dict(private=False)},
    ):
        await field.refused(signed(evil, field.claims(), kid="k1", **header), "signature")
    assert field.issuer.asked == asked


async def test_an_unknown_issuer_is_not_asked(field: Field) -> None:
    """A token cannot make us call an address: its `iss` is only compared."""
    evil = FakeIssuer("https://169.254.169.254")
    await field.refused(evil.token(field.claims(iss=evil.url)), "issuer is not trusted")
    assert not field.issuer.asked


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"b64": False}])
async def test_unknown_critical_header(field: Field, header: Claims) -> None:
    """What we do not understand and must, we refuse. RFC 7515, section 4.1.11."""
    await field.refused(
        f"{b64({'alg': 'ES256', 'kid': 'k1', 'typ': 'at+jwt'} | header)}.{b64(field.claims())}.AA", "crit"
    )


@pytest.mark.parametrize(
    "token",
    [
        f"{'a' * 5000}.{'b' * 5000}.c",
        f"{b64(b'[' * 3000)}.{b64(b'{}')}.c",
        f"{b64(b'[]')}.{b64(b'{}')}.c",
        f"{b64(b'{')}.e30.c",
        "é.é.é",
        "..",
        b64(TWICE) + ".e30.c",
    ],
)
async def test_junk_that_looks_like_a_token(field: Field, token: str) -> None:
    """Too long, too deep, no object, not base64, a member twice: refused, and nobody is asked."""
    with pytest.raises(BadToken):
        await field.shown(token)
    assert not field.issuer.asked


async def test_huge_token_is_not_parsed(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is looked at first: a megabyte costs no JSON."""
    monkeypatch.setattr("orchestrator.identity.oauth.jose._json", lambda *_: pytest.fail("it was parsed"))
    await field.refused(field.issuer.token(field.claims(groups=["g" * 100] * 10_000)), "limit")


async def test_invented_kids_do_not_flood_the_issuer(field: Field) -> None:
    """A thousand unknown key names are one look at the issuer's keys, until the cool-down is over."""
    assert await field.shown(field.issuer.token(field.claims()))
    field.clock.advance(31)
    before = len(field.issuer.asked)
    for number in range(50):
        await field.refused(signed(field.issuer.keys["k1"], field.claims(), kid=f"x{number}"), "kid")
    assert len(field.issuer.asked) - before == 2  # metadata and keys, once


async def test_revoked_token_and_revoked_client(field: Field) -> None:
    """Both count at once. RFC 7009."""
    client = await own_client(field)
    token = (await token_of(field, client)).json()["access_token"]
    other = (await token_of(field, client)).json()["access_token"]
    assert await field.shown(token)
    async with http_of(api_of(field.oauth, field.clock)) as http:
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
    async with http_of(api_of(field.oauth, field.clock), token) as http:
        made = await http.post("/v1/oauth/clients", json={"name": "x", "roles": ["admin"]})
        taken = await http.post(f"/v1/oauth/clients/{strong[0]}/rotate", json={})
        same = await http.post("/v1/oauth/clients", json={"name": "x", "roles": ["admin"], "scopes": ["keys:read"]})
    assert (made.status_code, taken.status_code, same.status_code) == (403, 403, 201)


async def test_one_tenants_admin_and_anothers_clients(field: Field) -> None:
    """An admin sees, registers, rotates and revokes clients of their own tenant alone, and no signing key."""
    theirs = await own_client(field, tenant="other")
    token = (await token_of(field, await own_client(field, "admin", tenant="acme"))).json()["access_token"]
    async with http_of(api_of(field.oauth, field.clock), token) as http:
        seen = (await http.get("/v1/oauth/clients")).json()["items"]
        made = await http.post("/v1/oauth/clients", json={"name": "x", "roles": ["agent"], "tenant": "other"})
        turned = await http.post(f"/v1/oauth/clients/{theirs[0]}/rotate", json={})
        ended = await http.delete(f"/v1/oauth/clients/{theirs[0]}")
        keys = await http.post("/v1/oauth/keys/rotate", json={})
    assert {one["tenant"] for one in seen} == {"acme"}
    assert [one.status_code for one in (made, turned, ended, keys)] == [403, 404, 404, 403]


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
    async with http_of(api_of(field.oauth, field.clock)) as http:
        return await http.post("/oauth/token", data=form)
