"""Real Claude Code's money, from its requests through the node's executor and the settler into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from orchestrator.ledger.values import CostsBy, CostsQuery
from orchestrator.testing.protocol import UNSAFE
from tasks.ledger_events import Event, Finished, Progress, unpack
from tasks.spend import Spend
from tests.contract.agents import bench
from worker.journal import Journal
from worker.testing.executor_bench import Bench
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS, text, use
from worker.upstreams.upstream import Ask

if TYPE_CHECKING:
    from orchestrator.testing.protocol import Story
    from tasks.envelope import Delivery
    from tests.contract.agents import Bench as Agents

pytestmark = [pytest.mark.live("claude"), pytest.mark.timeout(180)]
MODEL = "claude-sonnet-5"
COST_USD = (INPUT_TOKENS * 3.0 + OUTPUT_TOKENS * 15.0) / 1e6
"""Of one request to the double."""


class Node:
    """An executor with the agent behind it, as a node has it; its tool is called by the name the story knows."""

    def __init__(self, folder: Path, agents: Agents) -> None:
        self.agents, self.arguments = agents, dict[str, Any]()
        self.executor = Bench(folder, upstreams=self)

    async def call(
        self,
        tool: str,
        arguments: dict[str, object],
        *,
        on_progress: Callable[[float, float | None, str | None], None],
        on_spend: Callable[..., None],
        **given: Any,
    ) -> str:
        """The sidecar's `run`, whatever the name."""

        def heard(done: float, of: float | None, line: str | None) -> None:
            self.agents.lines.append(line or "")
            on_progress(done, of, line)

        ask = Ask(given["invocation"], None, None, heard, None, on_spend)
        return await self.agents.server.call("run", self.arguments | {"prompt": "do it"}, ask)

    def quiet_s(self, _tool: str) -> float | None:
        """Nothing to be heard."""
        return None

    def take(self, delivery: Delivery, **arguments: Any) -> None:
        """It comes out of the queue."""
        self.arguments = arguments
        self.executor.deliver(delivery.invocation, delivery.tool, fence=delivery.fence, timeout_s=90.0)

    async def ended(self, delivery: Delivery) -> Finished:
        """What it reports."""
        return await self.executor.ended(delivery.invocation)


@asynccontextmanager
async def node(folder: Path, script: list[list[dict[str, Any]]], **more: Any) -> AsyncIterator[Node]:
    """With a model that answers by the script."""
    async with bench(folder, script, **more) as agents:
        made = Node(folder, agents)
        yield made
        await made.executor.journal.close()


async def called(story: Story) -> Delivery:
    """One more call, on its way to the node."""
    await story.accept(UNSAFE)
    (delivery,) = await story.release()
    return delivery


async def booked(story: Story) -> tuple[int, int, float | None]:
    """Calls, requests and cost of all that is in the ledger."""
    query = CostsQuery(CostsBy.MODEL, "default", 0.0, 1e12)
    rows, total = await story.core.stores.ledger.costs(query)
    assert {row.key for row in rows} <= {MODEL}
    return total.calls, total.requests, total.cost_usd


async def test_a_resumed_session_is_paid_once(story: Story, tmp_path: Path) -> None:
    """Claude Code's own cost grows with the session; each run's bill is its own requests, told twice or not."""
    await story.join("a1", slots=4)
    async with node(tmp_path, [[text("first")], [text("second")]]) as at:
        first = await called(story)
        at.take(first)
        begun = await at.ended(first)
        session = _session(begun)
        second = await called(story)
        at.take(second, session=session)
        resumed = await at.ended(second)
    for delivery, ended in ((first, begun), (second, resumed), (second, resumed)):
        await story.core.settler.finished([("a1", ended)])
        assert ended.outcome.ending == "succeeded", delivery
    assert [one.outcome.spent for one in (begun, resumed)] == [(_spend(1),), (_spend(1),)]
    assert await booked(story) == (2, 2, pytest.approx(2 * COST_USD))


async def test_a_cancelled_run_is_paid_for(story: Story, tmp_path: Path) -> None:
    """It says no answer, and its one request is in the ledger."""
    await story.join("a1")
    async with node(tmp_path, [[use("Bash", command="tail -f /dev/null")]]) as at:
        delivery = await called(story)
        at.take(delivery, allowed_tools=["Bash"])
        async with asyncio.timeout(60):
            while not any("tail" in line for line in at.agents.lines):  # noqa: ASYNC110 - lines come by callback
                await asyncio.sleep(0.01)
        at.executor.executor.cancel((delivery.invocation, delivery.fence))
        ended = await at.ended(delivery)
        assert at.agents.sandboxes() == []
    assert (ended.outcome.ending, ended.outcome.result_json) == ("cancelled", None)
    await story.core.settler.finished([("a1", ended)])
    assert await booked(story) == (1, 1, pytest.approx(COST_USD))


async def test_a_killed_nodes_outcome_is_paid_once(story: Story, tmp_path: Path) -> None:
    """Told ahead, then reported, then again by the process that finds the journal: one bill."""
    await story.join("a1")
    async with node(tmp_path, [[use("Bash", command="echo hi")], [text("done")]]) as at:
        delivery = await called(story)
        at.take(delivery, allowed_tools=["Bash"])
        ended = await at.ended(delivery)
        told: list[Event] = list(at.executor.reporter.events)
    left = Journal.open(tmp_path / "a1.db", boot_id="b").recovered.finished
    again = [event for row in left for event in unpack(row.finished or b"")]
    assert again == [ended]
    ahead = [("a1", event) for event in told if isinstance(event, Progress) and event.spent]
    await story.core.settler.spent(ahead)
    await story.core.settler.finished([("a1", ended)])
    await story.core.settler.finished([("a1", event) for event in again if isinstance(event, Finished)])
    await story.core.settler.spent(ahead)
    assert await booked(story) == (1, 2, pytest.approx(2 * COST_USD))


async def test_a_model_without_a_price_is_unknown_money(story: Story, tmp_path: Path) -> None:
    """Tokens are known, cost is not: not in the answer, not in the ledger."""
    await story.join("a1")
    async with node(tmp_path, [[text("done")]], prices={}) as at:
        delivery = await called(story)
        at.take(delivery)
        ended = await at.ended(delivery)
    await story.core.settler.finished([("a1", ended)])
    assert (await booked(story))[2] is None
    (row,) = await story.core.stores.ledger.spend_of(delivery.invocation)
    assert (row.spend.requests, row.spend.input, row.spend.cost_usd) == (1, INPUT_TOKENS, None)


def _spend(requests: int) -> Spend:
    return Spend(MODEL, requests, requests * INPUT_TOKENS, requests * OUTPUT_TOKENS, cost_usd=requests * COST_USD)


def _session(ended: Finished) -> str:
    found: str = orjson.loads(ended.outcome.result_json or "{}")["structuredContent"]["session_id"]
    return found
