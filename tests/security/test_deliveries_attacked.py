"""Whoever can write to the broker, or read it: what it gets out of it is nothing.

The attacks on a sealed delivery, on a node's stream and on its control stream; then a real node process over
a real Redis, where each is refused and counted.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from orchestrator.registry.member import Lease, Member
from orchestrator.sealing import Seals
from tasks.envelope import Delivery, Opened, seal
from tasks.errors import BadDelivery
from tasks.invocation import Lane
from tasks.ledger_events import FIELD, Started, pack
from tasks.node import Control, Offer, Ref, SealTerms
from tasks.queues import control_stream, node_queue
from tasks.sealing import (
    DELIVERY_GOOD_S,
    SEALED_FIELD,
    NotSealedForUs,
    Opener,
    node_box,
    pool_box,
    public_hex,
    seal_delivery,
    seal_late,
    terms_id,
)
from tasks.testing.clock import FakeClock
from tests.security.hunt import wiretap
from worker.admit import Admission
from worker.seals import Seals as NodeSeals
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.node_process import node_process

KEY, POOL_KEY = secrets.token_bytes(32), secrets.token_bytes(32)
SIGNER = Ed25519PrivateKey.generate()
NOW = 1_800_000_000.0
TERMS = SealTerms(key=KEY.hex(), pool_key=POOL_KEY.hex(), signer=public_hex(SIGNER))
DELIVERY = Delivery(
    invocation="0198f3c2-0000-7000-8000-000000000001",
    fence=3,
    node="a1",
    incarnation="inc",
    term=1,
    tool="payroll.read",
    lane=Lane.TOOLS,
    timeout_s=30.0,
    arguments_json='{"who":"everybody"}',
    project="shop",
    tenant="acme",
)
LATE = replace(DELIVERY, node=None, incarnation=None)


def admission(terms: SealTerms | None = TERMS, *, node: str = "a1", pool: str = "east", now: float = NOW) -> Admission:
    """A node's judge, told these keys."""
    judge = Admission(node=node, incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1)
    opener = None if terms is None else Opener(terms, node=node, pool=pool, wall_s=lambda: now)
    judge.sealed = lambda: opener
    return judge


def sealed(delivery: Delivery = DELIVERY, key: bytes = KEY) -> tuple[str, str]:
    """As the orchestrator seals it for a1."""
    return seal_delivery(delivery, node_box(key, "a1"), NOW)


def late(signer: Ed25519PrivateKey = SIGNER) -> tuple[str, str]:
    """As it is sealed for any node of the pool."""
    return seal_late(LATE, pool_box(POOL_KEY, "east"), signer, NOW)


def why_not(judge: Admission, body: str, mac: str) -> str:
    """Why it was refused; it must be."""
    with pytest.raises(BadDelivery) as raised:
        judge.open(body, mac)
    return raised.value.why


@pytest.mark.parametrize("parts", [sealed(), late()], ids=["addressed", "late"])
def test_what_is_sealed_opens_at_its_node_and_shows_the_broker_nothing(parts: tuple[str, str]) -> None:
    """Tool, arguments, project and tenant are inside."""
    opened: Opened = admission().open(*parts)
    assert (opened.delivery.tool, opened.arguments) == ("payroll.read", {"who": "everybody"})
    assert not any(word in "".join(parts) for word in ("payroll", "everybody", "shop", "acme"))


@pytest.mark.parametrize("which", ["addressed", "late"])
@settings(max_examples=300)
@given(st.integers(0, 1), st.integers(0, 10_000), st.characters())
def test_no_changed_character_opens(which: str, part: int, at: int, letter: str) -> None:
    """In the readable header or in the sealed rest, whatever it is replaced with."""
    parts = list(sealed() if which == "addressed" else late())
    at %= len(parts[part])
    touched = parts[part][:at] + letter + parts[part][at + 1 :]
    if touched != parts[part]:
        parts[part] = touched
        assert why_not(admission(), *parts) in {"seal", "signature", "unsealed"}


def test_a_header_of_another_delivery_does_not_fit() -> None:
    """Who, what attempt and until when are bound to what is sealed."""
    one, other = sealed(), sealed(replace(DELIVERY, fence=4))
    assert why_not(admission(), other[0], one[1]) == "seal"
    longer = json.dumps(json.loads(one[0]) | {"exp": NOW + 1e9}, separators=(",", ":"))
    assert why_not(admission(), longer, one[1]) == "seal"


def test_a_delivery_of_another_node_or_incarnation_is_foreign() -> None:
    """Moved to another node's queue, or kept from an earlier process."""
    assert why_not(admission(node="b2"), *sealed()) == "seal"
    assert why_not(admission(TERMS.model_copy(update={"key": secrets.token_hex(32)})), *sealed()) == "seal"
    assert why_not(admission(pool="west"), *late()) == "seal"


def test_a_delivery_that_took_longer_than_a_day_is_expired() -> None:
    """Redis restored from an old dump."""
    assert why_not(admission(now=NOW + DELIVERY_GOOD_S + 1), *sealed()) == "expired"
    admission(now=NOW + DELIVERY_GOOD_S - 1).open(*sealed())


def test_a_replayed_delivery_is_not_new() -> None:
    """The same bytes, put back on the queue; and an earlier fence of the same Invocation."""
    judge = admission()
    judge.judge(judge.open(*sealed()).delivery)
    judge.remember_delivery(DELIVERY)
    for again in (sealed(), sealed(replace(DELIVERY, fence=2))):
        with pytest.raises(BadDelivery, match="fence"):
            judge.judge(judge.open(*again).delivery)


def test_a_node_of_the_pool_cannot_forge_for_its_neighbours() -> None:
    """It has the pool's key, as they do, and not the orchestrator's."""
    assert why_not(admission(), *late(Ed25519PrivateKey.generate())) == "signature"


def test_a_pools_key_does_not_speak_to_one_node() -> None:
    """Nor does an addressed delivery pass as a late-bound one, nor the other way round."""
    as_late = seal_late(DELIVERY, pool_box(POOL_KEY, "east"), SIGNER, NOW)
    assert why_not(admission(), *as_late) == "seal"
    as_addressed = seal_delivery(LATE, node_box(KEY, "a1"), NOW)
    assert why_not(admission(), *as_addressed) == "seal"


def test_a_plain_delivery_is_refused_where_sealing_is_demanded() -> None:
    """Though its MAC is right: no downgrade. Where it is not demanded it is taken."""
    assert why_not(admission(), *seal(DELIVERY, KEY)) == "unsealed"
    admission(TERMS.model_copy(update={"is_demanded": False})).open(*seal(DELIVERY, KEY))
    assert why_not(admission(None), *sealed()) == "mac"


# ------------------------------------------------------------------ streams


class Fleet:
    """The orchestrator's keys, and two nodes that have theirs."""

    def __init__(self, secret: bytes = b"of the fleet", *, is_demanded: bool = True) -> None:
        self.members = {name: _member(name) for name in ("a1", "b2")}
        self.seals = Seals(secret, find=self.members.get, clock=FakeClock(), is_demanded=is_demanded)
        self.refused: list[str] = []

    def node(self, name: str) -> NodeSeals:
        """After its join."""
        node = NodeSeals(node=name, pool="east", wall_s=lambda: NOW, refused=self.refused.append)
        node.take(self.seals.terms(self.members[name]))
        return node


def _member(name: str) -> Member:
    return Member(
        offer=Offer(name=name, pool="east", slots={}),
        incarnation=f"{name}/1",
        delivery_key=secrets.token_bytes(32),
        token_digest="",
        lease=Lease(1, 0.0),
        joined_at=0.0,
        known_since_s=0.0,
    )


EVENT = pack([Started("i-canary", 1, 1.0)])
CANCEL = Control(kind="cancel", refs=(Ref(invocation="i-canary", fence=1),))


def test_a_node_cannot_write_what_another_one_says() -> None:
    """Even where it may write to that stream: its key is not that node's."""
    fleet = Fleet()
    entry = dict([fleet.node("b2").event(EVENT)])
    assert fleet.seals.opened("b2", entry) == EVENT
    assert b"canary" not in b"".join(entry.values())
    with pytest.raises(NotSealedForUs):
        fleet.seals.opened("a1", entry)


def test_a_plain_entry_on_a_nodes_stream_is_not_believed() -> None:
    """Whoever can write to Redis can write that."""
    with pytest.raises(NotSealedForUs):
        Fleet().seals.opened("a1", {FIELD: EVENT})
    assert Fleet(is_demanded=False).seals.opened("a1", {FIELD: EVENT}) == EVENT


def test_what_a_node_said_before_it_joined_again_is_still_read() -> None:
    """Of the incarnation before, and of no older one."""
    fleet = Fleet()
    first = dict([fleet.node("a1").event(EVENT)])
    fleet.members["a1"].incarnation = "a1/2"
    fleet.node("a1")
    assert fleet.seals.opened("a1", first) == EVENT
    fleet.members["a1"].incarnation = "a1/3"
    fleet.node("a1")
    with pytest.raises(NotSealedForUs):
        fleet.seals.opened("a1", first)


def test_a_node_believes_no_control_entry_but_its_own() -> None:
    """Another node's, a plain one, its own event played back: refused and counted."""
    fleet = Fleet()
    node, said = fleet.node("a1"), fleet.seals.control("a1", CANCEL)
    assert node.control(said) == CANCEL.model_dump_json().encode()
    plain = {FIELD: CANCEL.model_dump_json().encode()}
    for forged in (fleet.seals.control("b2", CANCEL), plain, dict([node.event(EVENT)]), {SEALED_FIELD: b""}):
        assert node.control(forged) is None
    assert fleet.refused == ["control"] * 4


def test_a_copy_of_the_ledger_opens_nothing() -> None:
    """Keys need the fleet's secret too, which no database has. A changed one reaches nodes with a renewal."""
    fleet, other = Fleet(), Fleet(b"another secret")
    other.members.update(fleet.members)
    member = fleet.members["a1"]
    node = fleet.node("a1")
    entry = dict([node.event(EVENT)])
    with pytest.raises(NotSealedForUs):
        other.seals.opened("a1", entry)
    assert fleet.seals.news(member, node.id) is None
    news = other.seals.news(member, node.id)
    assert news is not None
    assert terms_id(news) != node.id
    node.take(news)
    assert other.seals.opened("a1", dict([node.event(EVENT)])) == EVENT


# ------------------------------------------------------------------ a real node


@pytest.fixture
async def fake(redis_url: str) -> AsyncIterator[FakeOrchestrator]:
    """A fleet that demands sealing."""
    async with FakeOrchestrator(redis_url, signer=SIGNER).serving() as fake:
        yield fake


async def test_a_real_node_refuses_and_counts_every_attack(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """Messages as somebody with the broker's password would write them; the node runs what is true, once."""
    async with node_process(fake, tmp_path, os.environ) as node:
        true = fake.delivery("probe.echo", '{"word": "true"}')
        body, mac = fake.sealed(true, fake.key)
        await fake.publish((body, mac), task_id=true.invocation)
        await fake.ended(true.invocation)
        flipped = mac[:40] + ("A" if mac[40] != "A" else "B") + mac[41:]
        mine = {"task_id": true.invocation}
        await fake.publish((body, mac), **mine)
        await fake.publish((body, flipped), **mine)
        await fake.publish(fake.sealed(true, secrets.token_bytes(32)), **mine)
        await fake.publish((body, mac), task_id="0198f3c2-0000-7000-8000-00000000ffff")
        await fake.publish((body, mac), task="mcpfleet.other", **mine)
        await fake.publish(("celery.ping", [(body, mac)]), task="celery.map", **mine)
        await fake.publish((body,), **mine)
        await fake.publish((1, 2), **mine)
        await fake.publish(seal(true, fake.key), **mine)
        async with Redis.from_url(fake.redis_url) as redis:
            await redis.xadd(control_stream(true.node or ""), {FIELD: CANCEL.model_dump_json()})
            await redis.lpush(node_queue(true.node or "", Lane.TOOLS), b'{"body": "junk"}')
        await fake.ended(await fake.call("probe.echo"))  # one queue, so the others were looked at before
        wanted = {"fence": 1, "seal": 2, "label": 1, "task": 2, "form": 2, "unsealed": 1, "control": 1}
        counted = {why: await node.metric(f'mcpfleet_deliveries_refused_total{{why="{why}"}}') for why in wanted}
        assert counted == wanted
        assert await node.metric('mcp_requests_total{outcome="succeeded",tool="probe.echo"}') == 2


async def test_redis_never_sees_arguments_or_results(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A canary in the arguments, which the tool echoes; every byte that Redis was sent is looked through."""
    canary = f"canary{secrets.token_hex(8)}"
    with wiretap(fake.redis_url) as tap:
        async with node_process(fake, tmp_path, os.environ):
            ended = await fake.ended(await fake.call("probe.echo", json.dumps({"word": canary})))
            assert canary in (ended.outcome.result_json or "")
    assert b'"XADD" "mcpfleet.n.' in tap.heard, "the node's report was heard"
    assert canary.encode() not in tap.heard
    assert b"probe" not in tap.heard
