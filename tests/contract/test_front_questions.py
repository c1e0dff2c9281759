"""What a run asks, put to the MCP client that called it: both eras, the SDK's own client, a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette

from orchestrator.assembly import fleet_of, views_of
from orchestrator.front.app import McpFront
from orchestrator.front.questions import State
from orchestrator.front.settings import FrontSettings
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.tokens import Tokens, static
from orchestrator.testing.front import modern
from orchestrator.testing.protocol import PlayedNode, Story, held
from orchestrator.testing.serving import serving
from tasks.approval import Question, Taken, Verdict, canonical, digest
from tasks.envelope import Delivery
from tasks.invocation import Lane, Principal
from tasks.invocation import State as Standing
from tasks.ledger_events import Asked, Resolved
from tasks.node import ApprovalAnswer, Control, Phase
from tasks.outcome import Outcome
from tasks.scopes import Role
from tasks.tool import ToolPolicy, ToolSpec

TOKEN = "operator-token"
ANN = Principal("ann", roles=frozenset({Role.DEVELOPER}))
RUN = "agent.run"
TOOLS = tuple(
    ToolSpec(
        server="agent",
        definition={"name": name, "inputSchema": {"type": "object"}},
        policy=ToolPolicy(lane=Lane.AGENTS),
    )
    for name in ("run", "chat")
)
TEXT = canonical({"command": "rm -r build", "note": "a\u202eb"})
WITHIN_S = 40.0


@dataclass
class Node:
    """A node that plays a run which asks, and does as it is told."""

    story: Story
    node: PlayedNode
    heard: asyncio.Queue[ApprovalAnswer] = field(default_factory=asyncio.Queue)
    url: str = ""

    async def say(self, node: str, control: Control) -> None:
        """Its control stream."""
        assert node == self.node.name
        for answer in control.answers:
            self.heard.put_nowait(answer)

    async def released(self) -> Delivery:
        """The next call that is placed."""
        async with asyncio.timeout(WITHIN_S):
            while not (some := await self.story.release()):  # noqa: ASYNC110 - a turn of the dispatcher
                await asyncio.sleep(0.01)
        await self.story.renew(self.node, held(some[0], Phase.RUNNING))
        return some[0]

    async def ask(self, run: Delivery, approval: str) -> None:
        """The run asks."""
        now = self.story.clock.wall_s()
        question = Question(approval, "Bash", TEXT, digest(TEXT), now, now + 600)
        asked = Asked(run.invocation, run.fence, question)
        await self.story.core.approvals.asked([(self.node.name, asked)])

    async def told(self, run: Delivery) -> ApprovalAnswer:
        """What a person said; the node says that it heard."""
        async with asyncio.timeout(WITHIN_S):
            answer = await self.heard.get()
        now = self.story.clock.wall_s()
        resolved = Resolved(run.invocation, run.fence, answer.approval, Taken(answer.verdict), now)
        await self.story.core.approvals.resolved([(self.node.name, resolved)])
        return answer

    async def finish(self, run: Delivery, said: str) -> None:
        """The run ends."""
        text = f'{{"content":[{{"type":"text","text":"{said}"}}]}}'
        await self.story.finish(self.node.name, run, Outcome("succeeded", result_json=text))


@pytest.fixture
async def node(story: Story) -> AsyncIterator[Node]:
    """With a door of the fleet that keeps sessions."""
    played = Node(story, await story.join("a1", tools=TOOLS))
    core = story.core
    core.approvals.voice = played
    own = Tokens(static(TOKEN, "join-token"), node_of=core.desk.node_of, enrolled=core.enroller.principal)
    tokens = Authenticators([own])
    front = McpFront(
        fleet_of(core, views_of(core)), tokens, FrontSettings(legacy_sessions=True), approvals=core.approvals
    )
    async with serving(Starlette(routes=front.routes(), lifespan=lambda _: front.running())) as url:
        played.url = f"{url}/mcp"
        yield played


@asynccontextmanager
async def client_of(node: Node, mode: str, **more: Any) -> AsyncIterator[Client]:
    """The SDK's client."""
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=WITHIN_S) as http,
        Client(streamable_http_client(node.url, http_client=http), mode=mode, **more) as client,
    ):
        yield client


class User:
    """Behind a client; answers what is asked."""

    def __init__(self, *answers: types.ElicitResult | None) -> None:
        self._answers, self.asked = list(answers), list[str]()
        self.is_asked, self.is_left = asyncio.Event(), asyncio.Event()

    async def __call__(self, _context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        """The next answer; None: never one."""
        self.asked.append(params.message)
        self.is_asked.set()
        answer = self._answers.pop(0)
        if answer is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.is_left.set()
        assert answer is not None
        return answer


def _accept(*, allow: bool, reason: str = "") -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"allow": allow, "reason": reason})


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_clients_user_is_asked_and_the_same_call_goes_on(node: Node, mode: str) -> None:
    """Two questions, two answers, one Invocation; what is shown cannot be misread."""
    user = User(_accept(allow=True), _accept(allow=False, reason="not this"))
    async with client_of(node, mode, elicitation_callback=user) as client:
        calling = asyncio.create_task(client.call_tool(RUN, {}))
        run = await node.released()
        await node.ask(run, "q-0001")
        first = await node.told(run)
        await node.ask(run, "q-0002")
        second = await node.told(run)
        await node.finish(run, "done")
        async with asyncio.timeout(WITHIN_S):
            answer = await calling
    assert (first.verdict, second.verdict, second.reason) == (Verdict.ALLOW, Verdict.DENY, "not this")
    assert answer.content[0].text == "done"  # type: ignore[union-attr]
    assert len(user.asked) == 2
    assert all(word in user.asked[0] for word in ("Bash", "rm -r build", "a\\u202eb", "q-0001", digest(TEXT)))
    assert await node.story.release() == []


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_user_who_leaves_it_open_leaves_it_to_others(node: Node, mode: str) -> None:
    """The call goes on waiting, is not asked again, and somebody else answers."""
    user = User(types.ElicitResult(action="cancel"))
    async with client_of(node, mode, elicitation_callback=user) as client:
        calling = asyncio.create_task(client.call_tool(RUN, {}))
        run = await node.released()
        await node.ask(run, "q-0001")
        await user.is_asked.wait()
        done, _ = await asyncio.wait({calling}, timeout=1.0)
        assert not done
        await node.story.core.approvals.answer("q-0001", Verdict.ALLOW, digest(TEXT), "", ANN)
        assert (await node.told(run)).verdict is Verdict.ALLOW
        await node.finish(run, "done")
        async with asyncio.timeout(WITHIN_S):
            await calling
    assert len(user.asked) == 1


async def test_a_session_is_not_asked_on_when_somebody_else_was_quicker(node: Node) -> None:
    """The client's user never answers; the call ends all the same."""
    user = User(None)
    async with client_of(node, "legacy", elicitation_callback=user) as client:
        calling = asyncio.create_task(client.call_tool(RUN, {}))
        run = await node.released()
        await node.ask(run, "q-0001")
        await user.is_asked.wait()
        await node.story.core.approvals.answer("q-0001", Verdict.DENY, digest(TEXT), "", ANN)
        await node.told(run)
        async with asyncio.timeout(WITHIN_S):
            await user.is_left.wait()
        await node.finish(run, "done")
        async with asyncio.timeout(WITHIN_S):
            assert (await calling).content[0].text == "done"  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_client_without_a_user_waits_for_others(node: Node, mode: str) -> None:
    """It is asked nothing, and its call goes on."""
    async with client_of(node, mode) as client:
        calling = asyncio.create_task(client.call_tool(RUN, {}))
        run = await node.released()
        await node.ask(run, "q-0001")
        done, _ = await asyncio.wait({calling}, timeout=0.3)
        assert not done
        await node.story.core.approvals.answer("q-0001", Verdict.ALLOW, digest(TEXT), "", ANN)
        await node.told(run)
        await node.finish(run, "done")
        async with asyncio.timeout(WITHIN_S):
            assert (await calling).content[0].text == "done"  # type: ignore[union-attr]


async def _post(node: Node, method: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
    body, headers = modern(method, params, **more)
    async with httpx2.AsyncClient(timeout=WITHIN_S) as http:
        answer = await http.post(node.url, json=body, headers=headers | {"authorization": f"Bearer {TOKEN}"})
    return dict(answer.json())


async def test_a_state_opens_no_other_call_and_no_other_arguments(node: Node) -> None:
    """What a client carries is checked: the call's tool, the digest, and its form."""
    accepted = await node.story.accept(RUN)
    run = await node.released()
    await node.ask(run, "q-0001")
    said = {"q-0001": {"action": "accept", "content": {"allow": True}}}
    capable = {"elicitation": {}}

    async def again(tool: str, state: str) -> dict[str, Any]:
        params = {"name": tool, "arguments": {}, "inputResponses": said, "requestState": state}
        return await _post(node, "tools/call", params, capabilities=capable)

    other_tool = await again("agent.chat", State(invocation=accepted.id, asked={"q-0001": digest(TEXT)}).sealed())
    assert other_tool["error"]["code"] == types.INVALID_PARAMS
    unknown = await again(RUN, State(invocation="nothing-known").sealed())
    assert unknown["error"]["code"] == types.INVALID_PARAMS
    assert (await again(RUN, "mcpfleet-approval:junk"))["error"]["code"] == types.INVALID_PARAMS
    forged = await again(RUN, State(invocation=accepted.id, asked={"q-0001": digest("{}")}).sealed())
    assert list(forged["result"]["inputRequests"]) == ["q-0001"]
    assert node.heard.empty()
    assert (await node.story.core.approvals.get("q-0001", ANN)).answer is None


async def test_a_task_asks_and_is_answered(node: Node) -> None:
    """tasks/get shows the question, tasks/update takes the answer; the task is the same Invocation."""
    capable = {"elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
    params = {"name": RUN, "arguments": {}}
    calling = asyncio.create_task(_post(node, "tools/call", params, capabilities=capable))
    run = await node.released()
    task = (await calling)["result"]["taskId"]
    await node.ask(run, "q-0001")
    seen = (await _post(node, "tasks/get", {"taskId": task}, capabilities=capable))["result"]
    assert (seen["status"], list(seen["inputRequests"])) == ("input_required", ["q-0001"])
    blind = dict(capable) | {"elicitation": None}
    del blind["elicitation"]
    assert (await _post(node, "tasks/get", {"taskId": task}, capabilities=blind))["result"]["status"] == "working"
    answers = {"q-0001": {"action": "decline"}}
    await _post(node, "tasks/update", {"taskId": task, "inputResponses": answers}, capabilities=capable)
    assert (await node.told(run)).verdict is Verdict.DENY
    await node.finish(run, "done")
    ended = (await _post(node, "tasks/get", {"taskId": task}, capabilities=capable))["result"]
    assert (ended["status"], ended["result"]["content"][0]["text"]) == ("completed", "done")
    assert (await node.story.get(task)).state is Standing.SUCCEEDED
