"""A node that never comes back leaves nothing behind; one that does is welcome."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from orchestrator.autoscaler.values import ClaimState, Rung
from orchestrator.happenings import Happening
from orchestrator.registry.forget import Forgetting
from orchestrator.settling.streams import NodeStreams
from orchestrator.testing.protocol import UNSAFE, PlayedNode, Story
from tasks.invocation import Lane, State
from tasks.node import LEASE_TTL_S
from tasks.outcome import Outcome
from tasks.queues import BINDINGS, binding_of, control_stream, events_stream, node_queue
from tasks.testing.clock import FakeClock

WEEK_S = 7 * 86_400.0


@pytest.fixture
def gone() -> list[str]:
    """Names of nodes that were forgotten."""
    return []


@pytest.fixture
def forgetting(story: Story, gone: list[str]) -> Forgetting:
    """After a week."""
    core = story.core
    return Forgetting(
        roster=core.roster,
        store=core.stores.ledger,
        attempts=core.attempts,
        on_gone=gone.append,
        after_s=WEEK_S,
        clock=story.clock,
    )


async def _silent(story: Story, forgetting: Forgetting, seconds: float) -> None:
    await forgetting.look()
    story.clock.advance(seconds)
    await forgetting.look()


async def _known(story: Story) -> list[str]:
    return [row.name for row in await story.core.stores.ledger.nodes()]


async def test_a_lost_node_is_forgotten_after_a_week(story: Story, forgetting: Forgetting, gone: list[str]) -> None:
    """Not before; and it can join again, as a new one."""
    await story.join("a1")
    await story.lapse(LEASE_TTL_S + 0.1)
    await _silent(story, forgetting, WEEK_S - 1)
    assert (await _known(story), gone) == (["a1"], [])
    await _silent(story, forgetting, 2)
    assert (await _known(story), gone, story.core.roster.names()) == ([], ["a1"], [])
    assert (await story.join("a1")).term == 1


async def test_a_node_whose_machine_was_ended_is_forgotten_at_once(story: Story) -> None:
    """Nobody comes back from it; while its claim stands, or an attempt of it is open, it may."""
    core, (ledger, claims) = story.core, (story.core.stores.ledger, story.core.claims)
    claim = await claims.order("east", Rung("cloud"), reason="load", expires_at=9e9)
    broom = Forgetting(
        roster=core.roster, store=ledger, attempts=core.attempts, on_gone=core.desk.on_left, after_s=WEEK_S,
        clock=story.clock, has_ended=core.claims.has_ended,
    )  # fmt: skip
    await story.join(claim.node)
    await story.join("by-hand")
    await story.lapse(LEASE_TTL_S + 0.1)
    await claims.move(claim.id, ClaimState.TERMINATING)
    await broom.look()
    assert await _known(story) == sorted(["by-hand", claim.node])
    await claims.move(claim.id, ClaimState.GONE)
    await broom.look()
    assert (await _known(story), core.roster.names()) == (["by-hand"], ["by-hand"])


async def test_a_node_that_is_back_is_not_forgotten(story: Story, forgetting: Forgetting, gone: list[str]) -> None:
    """Its silence counts anew."""
    node = await story.join("a1")
    await story.lapse(LEASE_TTL_S + 0.1)
    await _silent(story, forgetting, WEEK_S - 1)
    await story.renew(node)
    await _silent(story, forgetting, 1)
    await story.lapse(LEASE_TTL_S + 0.1)
    await _silent(story, forgetting, WEEK_S - 1)
    assert gone == []


async def test_a_node_that_comes_back_just_then_is_remembered(
    story: Story, forgetting: Forgetting, gone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its renewal came while its row was being deleted."""
    node = await story.join("a1")
    await story.lapse(LEASE_TTL_S + 0.1)
    ledger = story.core.stores.ledger
    forget = ledger.forget_node

    async def slowly(name: str) -> None:
        await forget(name)
        await story.renew(node)
        await forget(name)  # as if its row had been saved just before

    monkeypatch.setattr(ledger, "forget_node", slowly)
    await _silent(story, forgetting, WEEK_S + 1)
    assert (await _known(story), gone) == (["a1"], [])


async def test_a_node_with_an_open_attempt_is_kept(story: Story, forgetting: Forgetting, gone: list[str]) -> None:
    """Somebody waits for it: the sweep ends the attempt first."""
    await story.join("a1")
    call = await story.accept(UNSAFE)
    await story.release()
    await story.lapse(LEASE_TTL_S + 0.1)
    await _silent(story, forgetting, WEEK_S + 1)
    assert gone == []
    await story.silence(60)
    assert (await story.get(call.id)).state is State.LOST
    await forgetting.look()
    assert gone == ["a1"]


async def test_nothing_in_memory_is_kept_by_a_gone_nodes_name(story: Story) -> None:
    """A fleet that makes a new name for every machine must not remember them all."""
    node: PlayedNode = await story.join("a1")
    await story.accept()
    (delivery,) = await story.release()
    await story.finish("a1", delivery, _DONE)
    story.core.attempts.forget("a1")
    assert "a1" not in story.core.attempts.held_by_node(Lane.TOOLS)
    assert node.name not in story.core.desk.turns


async def test_nothing_in_redis_has_a_gone_nodes_name(clean_redis: str) -> None:
    """Streams and queues; a message in a queue is void by its incarnation."""
    redis = Redis.from_url(clean_redis)
    for key in (events_stream("a1"), control_stream("a1")):
        await redis.xadd(key, {"e": "[]"})
    for lane in Lane:
        await redis.rpush(node_queue("a1", lane), "a delivery")
        for bindings in BINDINGS:
            await redis.sadd(bindings, binding_of(node_queue("a1", lane)))
    streams = NodeStreams(
        redis, settling=_NOBODY, nodes=list, tell=_deaf, clock=FakeClock(), leads=bool, is_at=_nowhere
    )
    await streams.forget("a1")
    assert await redis.keys("*") == []
    await redis.aclose()


def _nowhere(_invocation: str, _fence: int, _node: str) -> bool:
    return False


def _deaf(_happening: Happening) -> None:
    return


class _Nobody:
    async def finished(self, events: object) -> None: ...
    async def started(self, events: object) -> None: ...


_NOBODY = _Nobody()
_DONE = Outcome("succeeded", result_json="{}")
