"""What is tried with tokens at the doors, and what must become of it: one test per attack.

Each was seen to fail with its control removed. Tokens are of our own server or of a foreign issuer, whichever
the attack would choose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from joserfc.jwk import ECKey, RSAKey

from orchestrator.identity.oauth.bearer import JwtAuthenticator
from orchestrator.identity.oauth.claims import Expected, check
from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.remote_keys import KEPT_S
from orchestrator.identity.oauth.seen import Seen
from orchestrator.oauth import foreign_tokens
from orchestrator.presented import Presented
from orchestrator.testing.oauth import BASE, FakeIssuer, rules, signed
from tests.security.oauth_field import Claims, Field, b64, field_of, own_client, own_token, token_of

MCP = f"{BASE}/mcp"
TWICE = b'{"alg":"ES256","kid":"k1","kid":"k1"}'


@pytest.fixture
async def field() -> Field:
    """Both kinds of issuer."""
    return await field_of()


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
        await field.refused(token, "algorithm is not one of")
        ours = f"{b64({'alg': name, 'typ': 'at+jwt', 'kid': 'k1'})}.{b64(field.claims(iss=BASE, aud=BASE))}."
        await field.refused(ours, "algorithm is not one of")


async def test_hs256_with_the_public_key(field: Field) -> None:
    """The public key is no shared secret. RFC 8725, section 2.1."""
    public = field.issuer.keys["k1"].as_pem(private=False)
    head = f"{b64({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'k1'})}.{b64(field.claims())}"
    token = f"{head}.{b64(hmac.new(public, head.encode(), hashlib.sha256).digest())}"
    await field.refused(token, "algorithm is not one of")


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
        ({"exp": "1900000000"}, r"when \(exp\)"),
        ({"exp": True}, r"when \(exp\)"),
        ({"iat": True}, r"when \(iat\)"),
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


@pytest.mark.parametrize("kind", [1, ["at+jwt"], {}, True, ""])
async def test_a_type_that_is_no_name(field: Field, kind: object) -> None:
    """It is refused as another type, not stumbled over."""
    await field.refused(f"{b64({'alg': 'ES256', 'kid': 'k1', 'typ': kind})}.{b64(field.claims())}.AA", "type")


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


async def test_the_issuer_is_looked_at_where_claims_are(field: Field) -> None:
    """Not only where the issuer's rules are chosen: that is another file, and may change."""
    expected = Expected("https://other.example", frozenset({"mcpfleet"}), frozenset({"at+jwt"}))
    with pytest.raises(BadToken, match="another issuer"):
        check(field.claims(), expected, certificate=None, now_s=field.clock.wall_s())


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


async def test_our_own_token_changed_on_the_way(field: Field) -> None:
    """Another role, the signature of the old one: refused, though a good token of this key was seen before."""
    head, body, signature = (await own_token(field)).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert await field.shown(f"{head}.{body}.{signature}")
    await field.refused(f"{head}.{b64(claims | {'roles': ['admin']})}.{signature}", "signature")


async def test_a_token_of_a_key_that_was_replaced_under_its_name(field: Field) -> None:
    """That its signature was checked once does not outlive the key that it was checked with."""
    token = field.issuer.token(field.claims(exp=int(field.clock.wall_s()) + 1800))
    assert await field.shown(token)
    field.issuer.keys["k1"] = ECKey.generate_key("P-256", private=True)
    field.clock.advance(KEPT_S)
    await field.refused(token, "signature")


async def test_our_own_token_of_two_clients(field: Field) -> None:
    """`sub` and `client_id` are one client. RFC 9068, section 2.2."""
    assert field.oauth.server is not None
    (key,) = field.oauth.server.keys._keys.values()
    other, _ = await own_client(field, "admin")
    claims = json.loads(base64.urlsafe_b64decode((await own_token(field)).split(".")[1] + "=="))
    await field.refused(signed(key.private, claims | {"sub": other}, kid=key.kid), "client")


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
    with pytest.raises(BadToken, match=r"cannot be read|no JSON object|not a signed JWT|limit"):
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
