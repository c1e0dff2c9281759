"""The real Flower process: who comes in, what it knows after a kill, what it shows of nodes and queues."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from orchestrator.flower.process import fault, fault_at
from orchestrator.flower.settings import read_flower_settings
from tasks.invocation import Lane, State
from tasks.node import NodeState
from tasks.queues import node_queue, pool_queue
from tests.contract.flower_rig import LATE_POOL, Rig, call, flower_on, flower_rig, node

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_killed_flower_is_whole_again_and_shown_to_nobody_else(tmp_path: Path) -> None:
    """One start, a kill -9 and another start: every promise to whoever looks at Flower."""
    async with flower_rig(tmp_path, is_tls=False) as rig:
        await _nobody_else(rig)
        rig.past += [
            call("id-1", node="a1", ago_s=3600.0),
            call("id-2", node="long-gone", ago_s=20.0, state=State.FAILED),
        ]
        rig.nodes += [node("a1"), node("b1", LATE_POOL), node("c1", state=NodeState.LOST)]
        await rig.kill()
        await rig.start()
        await _history(rig)
        await _nodes_and_queues(rig)
        rig.nodes[:] = [node("a1")]
        await rig.until("/workers?json=1", lambda answer: "b1" not in answer.text)
        assert "swarm" not in (await rig.get("/api/queues/length")).text


async def _nobody_else(rig: Rig) -> None:
    """Without the login there is nothing."""
    for path in ("/", "/tasks", "/metrics", "/healthcheck", "/static/css/flower.css", "/api/tasks", "/nothing"):
        refused = await rig.get(path, is_known=False)
        assert (path, refused.status_code) == (path, 401)
        assert "flower_events_total" not in refused.text
    assert not fault_at(rig.base, rig.login)


async def _history(rig: Rig) -> None:
    """What was before it started, with tool, project, node and the times they had."""
    tasks = (await rig.until("/api/tasks", lambda answer: len(answer.json()) == 2)).json()
    first, second = tasks["id-1"], tasks["id-2"]
    assert (first["name"], first["worker"], first["state"]) == ("git.git_log", "a1", "SUCCESS")
    assert "'project': 'shop'" in first["kwargs"]
    assert "'node': 'a1'" in first["kwargs"]
    assert first["succeeded"] == pytest.approx(rig.past[0].ended_at)
    assert (second["state"], second["exception"]) == ("FAILURE", "tool_error")


async def _nodes_and_queues(rig: Rig) -> None:
    """Nodes that are there, and nothing of the past among them; queues with what waits in each."""
    page = (await rig.until("/workers?json=1", lambda answer: "b1" in answer.text)).json()["data"]
    assert {worker["hostname"]: worker["status"] for worker in page} == {"a1": True, "b1": True}
    assert "git_log" not in (await rig.get("/metrics")).text, "the past is no event of now"
    with Redis.from_url(rig.url) as redis:
        redis.rpush(node_queue("a1", Lane.TOOLS), "one", "two")
        redis.rpush(pool_queue(LATE_POOL, Lane.AGENTS), "one")
    found = (await rig.get("/api/queues/length")).json()["active_queues"]
    assert {queue["name"]: queue["messages"] for queue in found} == {
        "mcpfleet.n.a1.tools": 2,
        "mcpfleet.n.b1.tools": 0,
        "mcpfleet.p.swarm.agents": 1,
        "mcpfleet.p.swarm.tools": 0,
    }
    assert "mcpfleet.n.a1.tools" in (await rig.get("/broker")).text
    assert "3 of 8" in (await rig.get("/worker/a1")).text


async def test_two_fleets_in_one_redis_are_two_flowers(redis_url: str) -> None:
    """By database number: names of queues and events are the same in each. Neither is told of the other."""
    first, second = f"{redis_url.rpartition('/')[0]}/3", f"{redis_url.rpartition('/')[0]}/4"
    async with flower_on(first, first) as rig, flower_on(second, second) as other:
        rig.nodes.append(node("a1"))
        other.nodes.append(node("b1"))
        with Redis.from_url(first) as redis:
            redis.rpush(node_queue("b1", Lane.TOOLS), "of the first fleet")
        await rig.until("/workers?json=1", lambda answer: "a1" in answer.text)
        page = await other.until("/workers?json=1", lambda answer: "b1" in answer.text)
        assert "a1" not in page.text
        assert '"messages": 0' in (await other.until("/api/queues/length", lambda answer: "b1" in answer.text)).text
        with Redis.from_url(first) as redis:
            redis.delete(node_queue("b1", Lane.TOOLS))


@pytest.mark.live("redis-tls")
async def test_flower_works_as_its_own_user_over_tls(tmp_path: Path) -> None:
    """A Redis with client certificates and users: history and queues as anywhere, and nothing denied.

    Its own door speaks TLS as well: nothing plain is answered, and the health check believes that certificate alone.
    """
    async with flower_rig(tmp_path, is_tls=True) as rig:
        rig.past.append(call("id-1", node="a1", ago_s=60.0))
        rig.nodes.append(node("a1"))
        await rig.until("/api/tasks", lambda answer: "id-1" in answer.text)
        await rig.until("/api/queues/length", lambda answer: "mcpfleet.n.a1.tools" in answer.text)
        assert "id-1" in (await rig.get("/task/id-1")).text
        settings = read_flower_settings({k: v for k, v in rig.environ.items() if k.startswith("MCPFLEET_")})
        assert not await asyncio.to_thread(fault, settings)
        other = settings.model_copy(update={"tls_cert": tmp_path / "node.pem"})
        assert "does not answer" in await asyncio.to_thread(fault, other)
        plain = await asyncio.to_thread(fault_at, f"http://127.0.0.1:{rig.port}", rig.login)
        assert "does not answer" in plain
