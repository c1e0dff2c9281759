"""Nodes' certificates, and doors that ask for them: the worker's own code, the core's, and real TLS between."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from orchestrator.certificates import Certificates, leaf_of
from orchestrator.identity.ca import LEAF_S, Authority, BadRequestForCertificate, thumbprint
from orchestrator.presented import presented
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import Story
from orchestrator.testing.serving import serving
from orchestrator.tls import own_context
from tasks.clock import SystemClock
from tasks.errors import NotAllowed, OrchestratorDown
from tasks.invocation import Lane
from tasks.node import JoinReply, JoinRequest, Offer, RenewRequest
from tasks.testing.clock import FakeClock
from worker.certificate import RENEW_AT, Certificate
from worker.door import Door
from worker.enrol import Credentials, Given

OPERATOR, JOIN = "fleet-token-not-a-secret", "join-token-not-a-secret"
SECRET, OTHER = b"one fleet's secret", b"another fleet's"
POOL = "east"


class Then:
    """The wall clock, moved."""

    def __init__(self, by_s: float) -> None:
        self._by_s, self._real = by_s, SystemClock()

    def wall_s(self) -> float:
        """Then."""
        return self._real.wall_s() + self._by_s

    def mono_s(self) -> float:
        """Now."""
        return self._real.mono_s()


AUTHORITY = Authority(SECRET, SystemClock())


def tls_serving(app: Starlette) -> AbstractAsyncContextManager[str]:
    """As the orchestrator is with MCPFLEET_TLS on."""
    return serving(app, own_context(AUTHORITY, ["localhost", "127.0.0.1"]))


@dataclass
class Fleet:
    """An orchestrator with TLS at `url`, and what trusts it."""

    url: str
    story: Story
    root: Path

    async def joined(self, folder: Path, name: str) -> tuple[Door, Certificate, JoinReply]:
        """A node that enrolled with a one-time token and joined, by the worker's own code."""
        token = (await self.story.core.enroller.issue(name, POOL, 60.0)).token
        assert token is not None
        folder.mkdir(exist_ok=True)
        certificate = Certificate(folder, name, self.root)
        door = Door(self.url, context=certificate.context)
        door_request = JoinRequest(
            incarnation=f"{name}/1", offer=Offer(name=name, pool=POOL, slots={Lane.TOOLS: 1}), seals=True
        )
        credentials = Credentials(folder, name, Given(token, ""), lambda: 0.0, certificate)
        return door, certificate, await credentials.enter(door, lambda: door.join(door_request))

    def door(self, token: str, name: str, context: ssl.SSLContext) -> Door:
        """Whoever has this token and this certificate."""
        door = Door(self.url, context=context)
        door.token, door._node = token, name
        return door


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A leader whose nodes need certificates."""
    clock = FakeClock()
    story = await Story.begin(tmp_path, clock)
    core = story.core
    certificates = Certificates(AUTHORITY, roster=core.roster, store=core.stores.ledger, turns=core.desk.turns)
    app = app_of(core, OPERATOR, JOIN, certificates=certificates)
    root = tmp_path / "root.pem"
    root.write_text(AUTHORITY.roots_pem)
    async with tls_serving(app) as url:
        yield Fleet(url, story, root)
    await story.end()


def renewal(name: str) -> RenewRequest:
    """Any request of a node."""
    return RenewRequest(incarnation=f"{name}/1", sealed_by="")


def shown(folder: Path, root: Path, authority: Authority, name: str) -> ssl.SSLContext:
    """A context that shows a certificate in this name, made by this authority."""
    folder.mkdir(exist_ok=True)
    context = ssl.create_default_context(cafile=str(root))
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "c.pem").write_text(authority.node(_csr(key, name), name=name).chain_pem)
    plain = serialization.NoEncryption()
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return context


def _csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    uri = x509.UniformResourceIdentifier("spiffe://mcpfleet/node/admin")
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    made = made.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


async def test_a_node_enrols_joins_and_renews_its_certificate(fleet: Fleet, tmp_path: Path) -> None:
    """Its key is made on the node and stays there; after the trade both work, and the new one goes on."""
    door, certificate, reply = await fleet.joined(tmp_path / "n", "n1")
    assert (await door.renew(renewal("n1"))).granted
    for name in ("n1.key.pem", "n1.cert.pem"):
        assert (tmp_path / "n" / name).stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "n/n1.cert.pem").read_text()
    certificate.take((await door.certificate(certificate.csr())).certificate)
    assert (tmp_path / "n/n1.cert.pem").read_text() != before
    assert (await door.renew(renewal("n1"))).granted, "the connection with the certificate before"
    anew = fleet.door(reply.node_token, "n1", certificate.context)
    assert (await anew.renew(renewal("n1"))).granted, "a connection with the new one"
    await door.close()
    await anew.close()


async def test_a_nodes_token_is_of_no_use_without_its_certificate(fleet: Fleet, tmp_path: Path) -> None:
    """No certificate, another node's, and another one in its own name (RFC 8705: bound to one, not to a name)."""
    door, _, reply = await fleet.joined(tmp_path / "n", "n1")
    _, other, _ = await fleet.joined(tmp_path / "o", "o2")
    bare = ssl.create_default_context(cafile=str(fleet.root))
    same_name = shown(tmp_path / "again", fleet.root, AUTHORITY, "n1")
    for context in (bare, other.context, same_name):
        thief = fleet.door(reply.node_token, "n1", context)
        with pytest.raises(NotAllowed):
            await thief.renew(renewal("n1"))
        with pytest.raises(NotAllowed):
            await thief.get_blob("0" * 64)
        await thief.close()
    assert (await door.renew(renewal("n1"))).granted
    await door.close()


async def test_a_stolen_credential_joins_nowhere_without_the_certificate(fleet: Fleet, tmp_path: Path) -> None:
    """Nor does the fleet's join token, which names no node, and nor does another node's certificate."""
    door, _, _ = await fleet.joined(tmp_path / "n", "n1")
    _, other, _ = await fleet.joined(tmp_path / "o", "o2")
    stolen = Credentials(tmp_path / "n", "n1", Given("", ""), lambda: 0.0)._secrets()[0]
    request = JoinRequest(incarnation="x", offer=Offer(name="n1", pool=POOL, slots={}), seals=True)
    for token in (stolen, JOIN):
        for context in (ssl.create_default_context(cafile=str(fleet.root)), other.context):
            thief = fleet.door(token, "n1", context)
            with pytest.raises(NotAllowed):
                await thief.join(request)
            await thief.close()
    await door.close()


@pytest.mark.parametrize(
    ("secret", "by_s"), [(OTHER, 0.0), (SECRET, -LEAF_S - 600), (SECRET, 3600.0)], ids=["foreign", "expired", "future"]
)
async def test_a_certificate_that_is_not_good_breaks_off_the_handshake(
    fleet: Fleet, tmp_path: Path, secret: bytes, by_s: float
) -> None:
    """Another fleet's authority; the right one, in the past and in the future."""
    bad = shown(tmp_path / "bad", fleet.root, Authority(secret, Then(by_s)), "n1")
    thief = fleet.door("any", "n1", bad)
    with pytest.raises(OrchestratorDown):
        await thief.renew(renewal("n1"))
    await thief.close()


async def test_tls_below_1_3_is_refused(fleet: Fleet) -> None:
    """And a client that knows another authority only does not talk to us."""
    old = ssl.create_default_context(cafile=str(fleet.root))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (old, ssl.create_default_context()):
        async with httpx.AsyncClient(verify=context) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"{fleet.url}/v1/nodes")


async def test_people_need_no_certificate(fleet: Fleet) -> None:
    """Theirs is a token; nodes' paths are the only ones that ask for more."""
    context = ssl.create_default_context(cafile=str(fleet.root))
    async with httpx.AsyncClient(verify=context, headers={"Authorization": f"Bearer {OPERATOR}"}) as http:
        assert (await http.get(f"{fleet.url}/v1/nodes")).status_code == 200


async def test_a_request_that_says_who_it_was_forwarded_for_is_not_believed() -> None:
    """Anybody can write that header; the peer is whoever connected. Nor can a header name a certificate."""

    async def who(request: Request) -> JSONResponse:
        seen = presented(request.scope)
        return JSONResponse([seen.peer, seen.certificate, request.url.scheme])

    context = ssl.create_default_context(cadata=AUTHORITY.roots_pem)
    said = {
        "X-Forwarded-For": "10.9.8.7",
        "X-Forwarded-Proto": "http",
        "X-Client-Cert": "x",
        "Forwarded": "for=10.9.8.7",
    }
    async with tls_serving(Starlette(routes=[Route("/", who)])) as url, httpx.AsyncClient(verify=context) as http:
        assert (await http.get(url, headers=said)).json() == ["127.0.0.1", None, "https"]


def test_a_certificate_is_for_who_asked_and_for_a_day() -> None:
    """The CSR says admin, in its subject and its names; the certificate says whose token it was."""
    issued = AUTHORITY.node(_csr(ec.generate_private_key(ec.SECP256R1()), "admin"), name="n1")
    made = x509.load_pem_x509_certificate(issued.chain_pem.encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["spiffe://mcpfleet/node/n1"]
    assert made.subject.rfc4514_string() == "CN=n1"
    assert made.not_valid_after_utc - made.not_valid_before_utc < dt.timedelta(seconds=LEAF_S + 600)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_requests_that_are_none_are_refused() -> None:
    """Junk, a key that is too cheap to make, a request that somebody changed."""
    good = _csr(ec.generate_private_key(ec.SECP256R1()), "n1")
    der = bytearray(ssl.PEM_cert_to_DER_cert(good.replace("CERTIFICATE REQUEST", "CERTIFICATE")))
    der[-1] ^= 1
    changed = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    for bad in ("", "junk", _csr(rsa.generate_private_key(65537, 2048), "n1"), changed, good * 100):
        with pytest.raises(BadRequestForCertificate):
            AUTHORITY.node(bad, name="n1")


def test_replicas_have_one_authority_and_it_is_the_secrets() -> None:
    """Two processes with the same secret are believed by the same nodes; with another they are not."""
    assert Authority(SECRET, SystemClock()).key_id == AUTHORITY.key_id != Authority(OTHER, SystemClock()).key_id


def test_a_certificate_is_renewed_at_two_thirds_of_its_life(tmp_path: Path) -> None:
    """Spread around it, and long before its end."""
    certificate = Certificate(tmp_path, "n1", None)
    certificate.take(AUTHORITY.node(certificate.csr(), name="n1").chain_pem)
    now = SystemClock().wall_s()
    early, late = (certificate.due_in_s(now, draw) for draw in (0.0, 0.999))
    assert 0.6 * LEAF_S - 600 < early < RENEW_AT * LEAF_S < late < 0.75 * LEAF_S
    assert certificate.due_in_s(now + LEAF_S, 0.5) == 0.0


async def test_a_node_that_was_revoked_trades_no_certificate(fleet: Fleet, tmp_path: Path) -> None:
    """Also where the door had looked at its token before: the trade waits for the expulsion, and is refused then."""
    door, certificate, reply = await fleet.joined(tmp_path / "n", "n1")
    core, held = fleet.story.core, thumbprint(leaf_of((tmp_path / "n/n1.cert.pem").read_text()))
    certificates = Certificates(AUTHORITY, roster=core.roster, store=core.stores.ledger, turns=core.desk.turns)
    with pytest.raises(NotAllowed):
        await certificates.renew("n1", reply.node_token, certificate.csr(), None)
    async with core.desk.turns.of("n1"):
        out = asyncio.create_task(core.desk.expel("n1"))
        await asyncio.sleep(0)
        trade = asyncio.create_task(certificates.renew("n1", reply.node_token, certificate.csr(), held))
        await asyncio.sleep(0)
    await out
    with pytest.raises(NotAllowed, match="void"):
        await trade
    assert core.roster.get("n1").token_digests == ()
    assert [row.token_digest for row in await core.stores.ledger.nodes() if row.name == "n1"] == [""]
    with pytest.raises(NotAllowed):
        await door.renew(renewal("n1"))
    await door.close()


async def test_a_trade_whose_answer_was_lost_is_made_again(fleet: Fleet, tmp_path: Path) -> None:
    """With the certificate before, which is good until the next trade."""
    door, certificate, _ = await fleet.joined(tmp_path / "n", "n1")
    await door.certificate(certificate.csr())
    certificate.take((await door.certificate(certificate.csr())).certificate)
    assert (await door.renew(renewal("n1"))).granted
    await door.close()
