"""The tasks extension: what SEP-2663 says a client may rely on, and what we promise beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from anyio.lowlevel import checkpoint

from orchestrator.front.legs import Tasks, leg_id
from orchestrator.testing.doors import OTHER_TOKEN
from orchestrator.testing.front import TASKS, FrontUnderTest, front_under_test, modern
from orchestrator.testing.inprocess_fleet import InProcessFleet, Progress
from orchestrator.testing.waiting import until
from tasks.clock import SystemClock
from tasks.errors import NotFound
from tasks.invocation import Call, Principal, State
from tasks.tool import ToolSpec

WITHIN_S = 20.0
CAPABILITIES = {**TASKS, "elicitation": {}}
UNKNOWN, UNDECLARED, MISMATCH, NO_METHOD = -32602, -32021, -32020, -32601
ALICE = Principal("alice", roles=frozenset({"developer"}))


@pytest.fixture
async def it() -> AsyncIterator[FrontUnderTest]:
    """A front whose window is short."""
    async with front_under_test() as under_test:
        yield under_test


async def ask(it: FrontUnderTest, method: str, params: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One request by a client that declares tasks; the JSON-RPC message."""
    body, headers = modern(method, params, capabilities=changes.pop("capabilities", CAPABILITIES))
    async with httpx.AsyncClient(timeout=WITHIN_S, trust_env=False) as http:
        answer = await http.post(it.url, content=orjson.dumps(body), headers={**headers, **changes})
    return dict(answer.json())


async def start(it: FrontUnderTest, tool: str) -> str:
    """A call that must become a task; its id."""
    created = (await ask(it, "tools/call", {"name": tool, "arguments": {"a": 1}}))["result"]
    assert created["resultType"] == "task"
    return str(created["taskId"])


async def get(it: FrontUnderTest, task_id: str) -> dict[str, Any]:
    """tasks/get."""
    return dict((await ask(it, "tasks/get", {"taskId": task_id}))["result"])


async def ended(it: FrontUnderTest, task_id: str, status: str) -> dict[str, Any]:
    """The task, once it has this status."""

    async def has_it() -> dict[str, Any] | None:
        task = await get(it, task_id)
        return task if task["status"] == status else None

    return dict(await until(has_it) or {})


async def test_a_task_ends_with_the_tools_own_result(it: FrontUnderTest) -> None:
    """working, then completed with the result inlined; times are ISO 8601, durations whole milliseconds."""
    task_id = await start(it, "t.hold")
    working = await get(it, task_id)
    assert working["status"] == "working"
    assert not working.keys() & {"result", "error", "inputRequests", "requestState"}
    assert (type(working["ttlMs"]), type(working["pollIntervalMs"])) == (int, int)
    assert working["createdAt"].endswith("Z")
    it.tools.release.set()
    done = await ended(it, task_id, "completed")
    assert done["result"]["structuredContent"] == {"a": 1}
    assert done["result"]["_meta"]["mcpfleet/invocation"] == task_id


async def test_a_tool_that_needs_a_task_gets_one_at_once(it: FrontUnderTest) -> None:
    """So do agent runs: nobody waits to see whether they are short."""
    it.tools.release.set()
    for tool in ("t.job", "t.agent"):
        assert (await ended(it, await start(it, tool), "completed"))["result"]


async def test_a_tool_that_needs_a_task_is_refused_to_others(it: FrontUnderTest) -> None:
    """-32021 with the extension named, and nothing is accepted."""
    refused = await ask(it, "tools/call", {"name": "t.job"}, capabilities={})
    assert refused["error"]["code"] == UNDECLARED
    assert refused["error"]["data"]["requiredCapabilities"] == TASKS
    assert not it.fleet.states()


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_every_method_asks_who_calls(it: FrontUnderTest, method: str) -> None:
    """Unknown ids, another tenant's, a client without the extension and a wrong routing header are refused."""
    task_id = await start(it, "t.hold")
    params = {"taskId": task_id, "inputResponses": {}}
    unknown = await ask(it, method, {**params, "taskId": "nobody-knows-this"})
    foreign = await ask(it, method, params, authorization=f"Bearer {OTHER_TOKEN}")
    undeclared = await ask(it, method, params, capabilities={})
    misrouted = await ask(it, method, params, **{"mcp-name": "other"})
    codes = [answer["error"]["code"] for answer in (unknown, foreign, undeclared, misrouted)]
    assert codes == [UNKNOWN, UNKNOWN, UNDECLARED, MISMATCH]
    assert foreign["error"]["message"] == unknown["error"]["message"]
    assert (await get(it, task_id))["status"] == "working"


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list"])
async def test_methods_of_the_older_draft_are_gone(it: FrontUnderTest, method: str) -> None:
    """-32601, whatever they are asked."""
    assert (await ask(it, method, {"taskId": "x"}))["error"]["code"] == NO_METHOD


async def test_a_cancel_stops_the_tool_and_can_be_repeated(it: FrontUnderTest) -> None:
    """An empty acknowledgement, twice; the status says cancelled."""
    task_id = await start(it, "t.hold")
    for _ in range(2):
        ack = (await ask(it, "tasks/cancel", {"taskId": task_id}))["result"]
        assert ack.keys() <= {"resultType", "_meta"}
        assert (await get(it, task_id))["status"] == "cancelled"
    assert it.tools.stopped == ["t.hold"]


async def test_bad_endings_are_told_apart(it: FrontUnderTest) -> None:
    """A tool's own error is a completed task; a call that broke is a failed one, with a JSON-RPC error."""
    (said,) = await it.fleet.accept([Call("t.fail")], ALICE)
    (broke,) = await it.fleet.accept([Call("t.break")], ALICE)
    assert (await ended(it, said.id, "completed"))["result"]["isError"] is True
    failed = await ended(it, broke.id, "failed")
    assert failed["error"]["data"]["code"] == "connection_lost"
    assert "result" not in failed


async def asking(it: FrontUnderTest) -> str:
    """A task that asks two questions."""
    (invocation,) = await it.fleet.accept([Call("t.ask")], ALICE)
    asked = await ended(it, invocation.id, "input_required")
    assert asked["inputRequests"].keys() == {"one", "two"}
    return invocation.id


async def answer(it: FrontUnderTest, task_id: str, **answers: str) -> None:
    """tasks/update."""
    responses = {key: {"action": "accept", "content": {"v": value}} for key, value in answers.items()}
    ack = await ask(it, "tasks/update", {"taskId": task_id, "inputResponses": responses})
    assert ack["result"].keys() <= {"resultType", "_meta"}


async def test_answers_may_come_one_by_one(it: FrontUnderTest) -> None:
    """Answered questions go, the others stay; with the last one the tool goes on, with its own state."""
    task_id = await asking(it)
    await answer(it, task_id, one="1", unknown="ignored")
    pending = await get(it, task_id)
    assert (pending["status"], pending["inputRequests"].keys()) == ("input_required", {"two"})
    assert len(it.tools.calls) == 1
    await answer(it, task_id, two="2")
    done = await ended(it, task_id, "completed")
    assert done["result"]["content"][0]["text"] == "1 2 s1"
    assert done["taskId"] == task_id


async def test_an_answer_given_twice_counts_once(it: FrontUnderTest) -> None:
    """A client that repeats an update for want of an acknowledgement starts nothing twice."""
    task_id = await asking(it)
    for _ in range(2):
        await answer(it, task_id, one="1", two="2")
    assert (await ended(it, task_id, "completed"))["result"]["content"][0]["text"] == "1 2 s1"
    assert len(it.tools.calls) == 2


async def test_a_task_that_asks_can_be_cancelled(it: FrontUnderTest) -> None:
    """Also with some answers given, and for good."""
    for given in ({}, {"one": "1"}):
        task_id = await asking(it)
        await answer(it, task_id, **given)
        await ask(it, "tasks/cancel", {"taskId": task_id})
        assert (await get(it, task_id))["status"] == "cancelled"
        await answer(it, task_id, one="1", two="2")
        assert (await get(it, task_id))["status"] == "cancelled"


async def test_concurrent_answers_are_both_kept(it: FrontUnderTest) -> None:
    """Two updates at once, through two replicas: neither is lost, and the tool goes on once."""
    task_id = await asking(it)
    replicas = [Tasks(_Slow(it.fleet), SystemClock()) for _ in range(2)]
    said = [{"one": {"action": "accept", "content": {"v": "1"}}}, {"two": {"action": "accept", "content": {"v": "2"}}}]
    await asyncio.gather(*(tasks.update(task_id, one, ALICE) for tasks, one in zip(replicas, said, strict=True)))
    assert (await ended(it, task_id, "completed"))["result"]["content"][0]["text"] == "1 2 s1"
    assert len(it.tools.calls) == 2


async def test_no_leg_is_left_waiting(it: FrontUnderTest) -> None:
    """Answers kept meanwhile leave nothing in the backlog once the task is over."""
    task_id = await asking(it)
    await answer(it, task_id, one="1")
    assert it.fleet.states()[leg_id(task_id, 2)] is State.WAITING
    await answer(it, task_id, two="2")
    await ended(it, task_id, "completed")
    assert set(it.fleet.states().values()) == {State.SUCCEEDED, State.CANCELLED}


async def test_a_tool_that_only_hands_back_its_state_is_called_again() -> None:
    """An InputRequiredResult without questions wants the next leg at once."""

    async def run(call: Call, _progress: Progress) -> str:
        if "requestState" in (call.meta_json or ""):
            return '{"content":[]}'
        return '{"resultType":"input_required","requestState":"again"}'

    fleet = InProcessFleet([ToolSpec(server="t", definition={"name": "x"})], run)
    tasks = Tasks(fleet, SystemClock())
    (first,) = await fleet.accept([Call("t.x")], ALICE)
    await fleet.wait(first.id, ALICE, WITHIN_S)
    await tasks.read(first.id, ALICE)
    await fleet.wait(leg_id(first.id, 2), ALICE, WITHIN_S)
    legs = await tasks.read(first.id, ALICE)
    assert (legs.is_over, legs.result, legs.first.id) == (True, {"content": []}, first.id)


async def test_another_tenants_task_does_not_exist(it: FrontUnderTest) -> None:
    """Reading, answering and ending are all refused as for an id that nobody has."""
    task_id = await asking(it)
    tasks, other = Tasks(it.fleet, SystemClock()), replace(ALICE, tenant="other")
    for move in (tasks.read(task_id, other), tasks.update(task_id, {"one": {}}, other), tasks.cancel(task_id, other)):
        with pytest.raises(NotFound):
            await move


class _Slow:
    """A fleet that lets the other replica run between any two of one replica's steps."""

    def __init__(self, fleet: InProcessFleet) -> None:
        self._fleet = fleet

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._fleet, name)

        async def slowly(*given: Any) -> Any:
            await checkpoint()
            return await step(*given)

        return slowly
