"""Secrets over the real ledger and the real API: set, shown without a value, given to whom the rule names."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.api.app import create_app
from orchestrator.api.settings import ApiSettings
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.tokens import Tokens, digest, static
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.secret_rows import SecretRows
from orchestrator.secrets.desk import Secrets
from orchestrator.secrets.keyring import KeyRing
from orchestrator.secrets.sources import FileSource
from orchestrator.testing.audit import memory_audit
from orchestrator.testing.blobs import MemoryBlobs
from orchestrator.testing.doors import FakeNodes, NoApprovals, NoPolicies
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.money import MemoryMoney
from orchestrator.testing.objectives import objectives_of
from orchestrator.testing.scaling import scale_views
from orchestrator.testing.secrets import NoErasure, new_ring
from tasks.clock import SystemClock
from tasks.errors import InvalidCall, NotFound
from tasks.invocation import Principal
from tasks.secret_wire import SecretRequest, SecretsReply

ANN = Principal(id="ann", tenant="default")
EVE = Principal(id="eve", tenant="evil")
POOLS = {"n1": "general", "n2": "general", "b1": "builders"}
VALUE = "canary-" + "v" * 20
REF = "secret_ref:shop:stripe"


class Desk:
    """One desk on a ledger of its own, and what it was made of."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.ledger, self.rows, self.folder = ledger, SecretRows(ledger), folder
        self.key = secrets.token_bytes(32)
        self.of = self.with_keys(KeyRing({"k1": self.key}, newest="k1"))

    def with_keys(self, keys: KeyRing | None) -> Secrets:
        """Another orchestrator on the same ledger."""
        sources = {"file": FileSource(self.folder)}
        return Secrets(books=self.rows, keys=keys, sources=sources, pool_of=POOLS.get, clock=SystemClock())

    async def put(self, who: Principal = ANN, **members: object) -> int:
        """Of owner `shop` and name `stripe`; its version."""
        wanted = SecretRequest.model_validate({"value": VALUE, "nodes": ("n1",)} | members)
        return (await self.of.put("shop", "stripe", wanted, who)).version

    async def give(self, node: str, ref: str = REF, *, with_values: bool = True) -> SecretsReply:
        """As that node is told."""
        return await self.of.give(node, "git", [ref], with_values=with_values)

    async def value_at(self, node: str, ref: str = REF) -> str | None:
        """None where it is withheld."""
        given = (await self.give(node, ref)).given
        return None if not given or given[0].value is None else given[0].value.get_secret_value()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """SQLite, one key, a folder of files."""
    ledger = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock=SystemClock())
    (tmp_path / "files").mkdir()
    yield Desk(ledger, tmp_path / "files")
    await ledger.close()


async def test_a_secret_goes_to_the_node_that_its_rule_names_and_to_no_other(desk: Desk) -> None:
    """Default deny: not to the node beside it, nor to one that nobody knows."""
    await desk.put()
    assert await desk.value_at("n1") == VALUE
    assert await desk.value_at("n2") is None
    assert await desk.value_at("b1") is None
    assert await desk.value_at("stranger") is None


async def test_a_pool_in_the_rule_is_the_pool_that_the_node_joined_in(desk: Desk) -> None:
    """Any node of it, none of another; and `*` is any."""
    await desk.put(nodes=(), pools=("general",))
    assert [await desk.value_at(node) for node in ("n1", "n2", "b1")] == [VALUE, VALUE, None]
    await desk.put(pools=("*",))
    assert await desk.value_at("b1") == VALUE


async def test_a_tenant_s_secret_is_reached_under_its_own_name_alone(desk: Desk) -> None:
    """Another tenant that sets the same owner and name neither reads nor replaces it."""
    await desk.put()
    await desk.put(EVE, value="other-value", pools=("*",))
    assert await desk.value_at("n1") == VALUE
    assert await desk.value_at("n1", "secret_ref:evil/shop:stripe") == "other-value"
    assert [one.ref for one in await desk.of.listing(EVE)] == ["secret_ref:evil/shop:stripe"]
    await desk.of.delete("shop", "stripe", EVE)
    assert await desk.value_at("n1") == VALUE
    with pytest.raises(NotFound):
        await desk.of.show("shop", "stripe", EVE)


async def test_what_is_withheld_and_what_is_not_there_sound_alike(desk: Desk) -> None:
    """A node cannot find out which secrets there are."""
    await desk.put()
    (held,), (absent,) = (await desk.give("n2")).withheld, (await desk.give("n2", "secret_ref:shop:nothing")).withheld
    assert held.why.replace("stripe", "nothing") == absent.why


async def test_a_value_is_sealed_in_the_database_and_bound_to_its_row(desk: Desk, tmp_path: Path) -> None:
    """Neither in the file nor in another row of it: who may write the database cannot move it to a tenant of theirs."""
    await desk.put()
    (row,) = await desk.rows.secrets()
    await desk.rows.save_secrets([replace(row, tenant="evil", nodes="*")])
    reply = await desk.give("n1", "secret_ref:evil/shop:stripe")
    assert not reply.given
    assert "does not open this" in reply.withheld[0].why
    await desk.ledger.close()
    for path in tmp_path.glob("ledger.db*"):
        assert VALUE.encode() not in path.read_bytes()


async def test_an_older_version_put_under_the_new_number_does_not_open(desk: Desk) -> None:
    """The version is bound, too."""
    await desk.put()
    (old,) = await desk.rows.secrets()
    await desk.put(value="second-value")
    await desk.rows.save_secrets([replace(old, version=2)])
    assert await desk.value_at("n1") is None


async def test_a_new_value_is_a_new_version_and_keeps_the_rule(desk: Desk) -> None:
    """Rotation needs the value alone, and every node is told that something changed."""
    await desk.put()
    before, mark = (await desk.give("n1", with_values=False)).given[0], desk.of.mark()
    assert before.value is None
    assert await desk.put(value="second-value", nodes=None) == 2
    after = (await desk.give("n1", with_values=False)).given[0]
    assert before.version != after.version
    assert desk.of.mark() != mark
    assert await desk.value_at("n1") == "second-value"


async def test_one_that_was_deleted_and_set_anew_is_another_version(desk: Desk) -> None:
    """A node that runs with the first sees the difference though both are number 1."""
    await desk.put()
    first = (await desk.give("n1")).given[0].version
    await desk.of.delete("shop", "stripe", ANN)
    assert await desk.put(value="second-value") == 1
    assert (await desk.give("n1")).given[0].version != first


async def test_keys_rotate_and_the_old_one_can_go(desk: Desk) -> None:
    """Rewrap, then an orchestrator without the old key opens everything."""
    await desk.put()
    new = secrets.token_bytes(32)
    both, only = KeyRing({"k2": new, "k1": desk.key}, newest="k2"), KeyRing({"k2": new}, newest="k2")
    desk.of = desk.with_keys(both)
    assert await desk.value_at("n1") == VALUE
    assert await desk.of.rewrap() == ("k2", 1, 0)
    assert await desk.of.rewrap() == ("k2", 0, 0)
    desk.of = desk.with_keys(only)
    assert await desk.value_at("n1") == VALUE


async def test_a_lost_key_is_said_to_the_node_and_the_rest_goes_on(desk: Desk) -> None:
    """Which line is missing from which file."""
    await desk.put()
    desk.of = desk.with_keys(new_ring("k9"))
    assert "'k1'" in (await desk.give("n1")).withheld[0].why
    desk.of = desk.with_keys(None)
    assert "MCPFLEET_KEY_FILE" in (await desk.give("n1")).withheld[0].why
    with pytest.raises(Exception, match="mcpfleet secrets new-key"):
        await desk.put()


async def test_a_secret_without_a_rule_is_refused(desk: Desk) -> None:
    """It could never be used, and nobody would know why."""
    with pytest.raises(InvalidCall, match="--node"):
        await desk.put(nodes=())


@pytest.mark.parametrize("wrong", ["a b", "n1\n", "../x", "N1", ""])
async def test_names_in_a_rule_are_names(desk: Desk, wrong: str) -> None:
    """They are kept with spaces between them, so one with a space would be two."""
    with pytest.raises(InvalidCall):
        await desk.put(nodes=(wrong,))


@pytest.mark.parametrize("wrong", ["shop:x\n", "Shop:x", "shop:", "a/b/c:x", "shop", "shop:../x", "shop:x:y"])
async def test_what_is_no_ref_is_withheld(desk: Desk, wrong: str) -> None:
    """`$` would let the newline pass."""
    assert (await desk.give("n1", f"secret_ref:{wrong}")).withheld


async def test_a_file_is_read_each_time_and_its_change_is_found(desk: Desk) -> None:
    """Docker's and systemd's: the name is the secret's own, so no other file can be asked for."""
    (desk.folder / "shop.stripe").write_text("from-a-file\n")
    await desk.put(value=None, source="file")
    assert await desk.value_at("n1") == "from-a-file"
    mark = desk.of.mark()
    await desk.of.look()
    assert desk.of.mark() == mark
    draft = desk.folder / "draft"
    draft.write_text("a-new-one")
    draft.replace(desk.folder / "shop.stripe")
    await desk.of.look()
    assert desk.of.mark() != mark
    assert await desk.value_at("n1") == "a-new-one"


async def test_a_link_out_of_the_folder_and_what_is_no_text_are_refused(desk: Desk, tmp_path: Path) -> None:
    """Who may write the folder for one tenant cannot read the host through it."""
    (tmp_path / "outside").write_text("host secret")
    (desk.folder / "shop.stripe").symlink_to(tmp_path / "outside")
    await desk.put(value=None, source="file")
    assert "leads out" in (await desk.give("n1")).withheld[0].why
    (desk.folder / "shop.stripe").unlink()
    assert "no file" in (await desk.give("n1")).withheld[0].why
    for bad in (b"\xff\xfe", b"", b"a\0b", b"x" * 70_000):
        (desk.folder / "shop.stripe").write_bytes(bad)
        assert await desk.value_at("n1") is None


OPERATOR, JOIN, NODE = "o" * 40, "j" * 40, "n" * 40


@pytest.fixture
async def api(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP API over this desk; the token NODE is node n1's."""
    own = Tokens(static(OPERATOR, JOIN), node_of={digest(NODE): "n1"}.get, enrolled=lambda _: None)
    tokens = Authenticators([own])
    nobody: Any = None
    app = create_app(
        FakeFleet(), FakeNodes(), MemoryBlobs(), tokens, ApiSettings(), enrolments=nobody, keys=nobody,
        challenges=nobody, scaling=scale_views(), money=MemoryMoney(), approvals=NoApprovals(), secrets=desk.of,
        erasure=NoErasure(), policies=NoPolicies(), audit=memory_audit(),
        objectives=objectives_of(SystemClock()),
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http:
        yield http


async def test_no_answer_to_a_person_holds_a_value(api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """Set, shown, listed, refused, deleted: the operator's own token does not read it back, and the log neither."""
    caplog.set_level(logging.DEBUG)
    body = {"value": VALUE, "nodes": ["n1"]}
    answers = [
        await api.put("/v1/secrets/shop/stripe", json=body),
        await api.get("/v1/secrets/shop/stripe"),
        await api.get("/v1/secrets"),
        await api.put("/v1/secrets/shop/stripe", json=body | {"nodes": ["N 1"]}),
        await api.put("/v1/secrets/Shop/stripe", json=body),
        await api.put("/v1/secrets/shop/stripe", json=body | {"valeu": VALUE}),
        await api.put("/v1/secrets/shop/stripe", json=body | {"value": [VALUE]}),
        await api.put("/v1/secrets/shop/stripe", json=body | {"value": VALUE + "\0"}),
        await api.put("/v1/secrets/shop/stripe", content=json.dumps(body)[:-1].encode()),
        await api.post("/v1/nodes/n1/secrets", json={"server": "git", "refs": [REF]}),
        await api.delete("/v1/secrets/shop/stripe"),
    ]
    assert [one.status_code for one in answers] == [200, 200, 200, 422, 422, 422, 422, 409, 400, 403, 204]
    assert all(VALUE not in one.text for one in answers)
    assert VALUE not in caplog.text


async def test_a_node_asks_for_itself_alone_and_nothing_else(api: httpx.AsyncClient) -> None:
    """Its token opens no list, sets nothing, and does not speak for the node beside it."""
    await api.put("/v1/secrets/shop/stripe", json={"value": VALUE, "nodes": ["n1"]})
    ask = {"server": "git", "refs": [REF]}
    as_node = {"Authorization": f"Bearer {NODE}"}
    own = await api.post("/v1/nodes/n1/secrets", json=ask, headers=as_node)
    assert own.json()["given"][0]["value"] == VALUE
    assert own.headers["cache-control"] == "no-store"
    others = [
        await api.post("/v1/nodes/n2/secrets", json=ask, headers=as_node),
        await api.get("/v1/secrets", headers=as_node),
        await api.put("/v1/secrets/shop/stripe", json={"value": "x"}, headers=as_node),
        await api.post("/v1/nodes/n1/secrets", json=ask, headers={"Authorization": f"Bearer {JOIN}"}),
        await api.post("/v1/nodes/n1/secrets", json=ask, headers={"Authorization": ""}),
    ]
    assert [one.status_code for one in others] == [403, 403, 403, 403, 401]
