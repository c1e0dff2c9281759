"""A new pool secret, and the authority that goes with it, while nodes are at work: nobody enrols anew."""

from __future__ import annotations

import io
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from orchestrator.certificates import Certificates
from orchestrator.cli import main
from orchestrator.identity.ca import Authority
from orchestrator.ledger.audit_values import AuditFilter
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import Story
from orchestrator.testing.serving import serving
from orchestrator.tls import own_context
from orchestrator.tls_doors import authority_for
from orchestrator.whole import _certificates
from tasks.clock import SystemClock
from tasks.errors import OrchestratorDown, SettingsError
from tasks.invocation import Lane
from tasks.node import JoinReply, JoinRequest, Offer, RenewRequest
from tasks.testing.clock import FakeClock
from worker.certificate import Certificate
from worker.door import Door
from worker.enrol import Credentials, Given
from worker.roots import Roots

OPERATOR, JOIN, POOL = "fleet-token-not-a-secret", "join-token-not-a-secret", "east"
CLOCK = SystemClock()
OLD = Authority(b"the secret before", CLOCK)
NEW = Authority(b"the secret now", CLOCK)
BOTH = Authority(b"the secret now", CLOCK, earlier=OLD)
RENEWAL = RenewRequest(incarnation="n1/1", sealed_by="")


@dataclass
class Field:
    """An orchestrator whose doors are opened by one authority after the other, and its node n1."""

    story: Story
    folder: Path
    reply: JoinReply | None = None

    @property
    def file(self) -> Path:
        """What the node was given at first: the root of the authority before."""
        return self.folder / "ca.pem"

    def doors(self, authority: Authority) -> AbstractAsyncContextManager[str]:
        """As after a restart of the orchestrator; answers their address."""
        core = self.story.core
        certificates = Certificates(authority, roster=core.roster, store=core.stores.ledger, turns=core.desk.turns)
        app = app_of(core, OPERATOR, JOIN, certificates=certificates)
        return serving(app, own_context(authority, ["localhost", "127.0.0.1"]))

    def restarted(self) -> Certificate:
        """The node's, as a new process of it finds it."""
        return Certificate(self.folder, "n1", self.file)

    async def joined(self, url: str) -> None:
        """The node enrols and joins, by the worker's own code."""
        token = (await self.story.core.enroller.issue("n1", POOL, 60.0)).token
        assert token is not None
        certificate = self.restarted()
        door = Door(url, context=certificate.context)
        request = JoinRequest(incarnation="n1/1", offer=Offer(name="n1", pool=POOL, slots={Lane.TOOLS: 1}), seals=True)
        credentials = Credentials(self.folder, "n1", Given(token, ""), lambda: 0.0, certificate)
        self.reply = await credentials.enter(door, lambda: door.join(request))
        await door.close()

    async def renews(self, url: str, certificate: Certificate) -> bool:
        """Whether the node is still a member there; False where one does not believe the other."""
        door = self._door(url, certificate)
        try:
            return (await door.renew(RENEWAL)).granted
        except OrchestratorDown:
            return False
        finally:
            await door.close()

    async def trades(self, url: str, certificate: Certificate) -> None:
        """Its certificate for the next, as it does each day."""
        door = self._door(url, certificate)
        said = await door.certificate(certificate.csr())
        certificate.take(said.certificate, said.roots)
        await door.close()

    def _door(self, url: str, certificate: Certificate) -> Door:
        assert self.reply is not None
        door = Door(url, context=certificate.context)
        door.token, door._node = self.reply.node_token, "n1"
        return door


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    """The node has joined under the authority before."""
    (tmp_path / "n").mkdir()
    found = Field(await Story.begin(tmp_path, FakeClock()), tmp_path / "n")
    found.file.write_text(OLD.roots_pem)
    async with found.doors(OLD) as url:
        await found.joined(url)
    yield found
    await found.story.end()


async def test_a_node_goes_from_one_authority_to_the_next(field: Field) -> None:
    """Both are good in the overlap. It trades its certificate by the one at hand, and needs the old root no more."""
    running = field.restarted()
    async with field.doors(BOTH) as url:
        assert await field.renews(url, running), "it knows the old root alone, and shows a certificate of it"
        await field.trades(url, running)
        assert await field.renews(url, running)
    async with field.doors(NEW) as url:
        assert await field.renews(url, running), "the same process, when the old authority is no more"
        await field.trades(url, running)
        assert await field.renews(url, field.restarted()), "and a new one, whose file has the old root alone"


async def test_without_the_overlap_one_does_not_believe_the_other(field: Field) -> None:
    """A new secret alone is another authority: what is believed is believed because of the earlier one."""
    async with field.doors(NEW) as url:
        assert not await field.renews(url, field.restarted())


async def test_what_the_old_authority_makes_is_worth_nothing_when_it_is_retired(field: Field) -> None:
    """At the doors, with a certificate that has hours to go; of a node that had not traded it in time, too."""
    left_behind = (field.folder / "n1.cert.pem").read_text()
    async with field.doors(BOTH) as url:
        await field.trades(url, field.restarted())
    async with field.doors(NEW) as url:
        late = field.restarted()
        (field.folder / "n1.cert.pem").write_text(left_behind)
        late.context.load_cert_chain(field.folder / "n1.cert.pem", field.folder / "n1.key.pem")
        assert not await field.renews(url, late)


async def test_a_node_that_heard_of_the_end_does_not_believe_the_old_authority(field: Field) -> None:
    """Whatever its file says: who has the old secret cannot pass for the fleet. From its next start on."""
    running = field.restarted()
    for authority in (BOTH, NEW):
        async with field.doors(authority) as url:
            await field.trades(url, running)
    believed = Roots(field.folder / "n1.roots.pem", field.file).context()  # no certificate: doors shall not refuse it
    async with field.doors(OLD) as url, httpx.AsyncClient(verify=believed) as http:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.get(url)


async def test_people_with_the_old_root_are_served_during_the_overlap(field: Field) -> None:
    """And those with both, or with the new one."""
    async with field.doors(BOTH) as url:
        for roots in (OLD.roots_pem, BOTH.roots_pem, NEW.roots_pem):
            context = ssl.create_default_context(cadata=roots)
            async with httpx.AsyncClient(verify=context, headers={"Authorization": f"Bearer {OPERATOR}"}) as http:
                assert (await http.get(f"{url}/v1/nodes")).status_code == 200


async def test_a_node_that_enrols_in_the_overlap_is_told_both(field: Field) -> None:
    """With a file of before, it is one of the new authority from its first hour."""
    async with field.doors(BOTH) as url:
        await field.joined(url)
    async with field.doors(NEW) as url:
        assert await field.renews(url, field.restarted())


def test_a_node_that_checks_doors_by_another_authority_takes_no_roots(tmp_path: Path) -> None:
    """The fleet's authority makes certificates of nodes there, and shall not speak for the doors."""
    company = Authority(secrets.token_bytes(32), CLOCK)
    (tmp_path / "ca.pem").write_text(company.roots_pem)
    certificate = Certificate(tmp_path, "n1", tmp_path / "ca.pem")
    issued = NEW.node(certificate.csr(), name="n1")
    certificate.take(issued.chain_pem, issued.roots_pem)
    assert not (tmp_path / "n1.roots.pem").exists()
    assert len(certificate.context.get_ca_certs()) == 1


def test_what_was_told_is_for_this_node_alone(tmp_path: Path) -> None:
    """Who could write there could name an orchestrator of his own; a file that is damaged is refused by name."""
    (tmp_path / "ca.pem").write_text(OLD.roots_pem)
    certificate = Certificate(tmp_path, "n1", tmp_path / "ca.pem")
    certificate.take(BOTH.node(certificate.csr(), name="n1").chain_pem, BOTH.roots_pem)
    kept = tmp_path / "n1.roots.pem"
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("damaged")
    with pytest.raises(SettingsError, match=r"n1\.roots\.pem"):
        Certificate(tmp_path, "n1", tmp_path / "ca.pem")


async def test_the_audit_log_names_the_authorities_in_force(field: Field) -> None:
    """In the row of each new leader: who changed the environment is not asked, what it led to is on record."""
    core = field.story.core
    assert _certificates(BOTH, core) is not None
    await core.audit.begin(1)
    (row,), _ = await core.audit.listing(AuditFilter(action="orchestrator.lead"), None, 1)
    details = json.loads(row.details_json)
    assert (details["authority"], details["earlier_authority"]) == (NEW.key_id, OLD.key_id)


def settings(**changes: str) -> dict[str, str]:
    """Of an orchestrator with TLS."""
    return {"token": OPERATOR, "join_token": JOIN, "tls": "true", "pool_secret": "the secret now", **changes}


def test_the_earlier_secret_is_another_one() -> None:
    """The same twice is a rotation that was not made."""
    wrong = OrchestratorSettings.model_validate(settings(pool_secret_earlier="the secret now"))
    with pytest.raises(SettingsError, match="MCPFLEET_POOL_SECRET_EARLIER is the same"):
        authority_for(wrong, CLOCK)
    both = authority_for(OrchestratorSettings.model_validate(settings(pool_secret_earlier="the secret before")), CLOCK)
    assert both is not None
    assert (both.key_id, both.earlier and both.earlier.key_id) == (NEW.key_id, OLD.key_id)


def test_ca_prints_both_roots_during_the_overlap() -> None:
    """The new one first; by the keys' names people compare them."""
    given = settings(pool_secret_earlier="the secret before")
    environ = {f"MCPFLEET_{name.upper()}": value for name, value in given.items()}

    def said(*words: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        assert main.run(("ca", *words), environ=environ, out=out, err=err, stdin=io.BytesIO()) == 0, err.getvalue()
        return out.getvalue()

    assert len(x509.load_pem_x509_certificates(said().encode())) == 2
    found = json.loads(said("--json"))
    assert (found["key_sha256"], found["earlier_key_sha256"]) == (NEW.key_id, OLD.key_id)
