"""The chat sidecar against the real client library and a double of the API on a loopback port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from tasks.clock import SystemClock
from tests.contract.chat_rig import KEY, ONE_ANSWER_USD, WAIT_S, events_of, result_of, sidecar, task_in
from worker.sidecars.guard import guarded
from worker.sidecars.openai_chat import OpenAIChat
from worker.sidecars.sidecar import (
    AgentTask,
    Began,
    Ending,
    Event,
    Fault,
    Result,
    RunLimits,
    Said,
    Session,
    SessionMode,
    Thought,
    ToolBegan,
    ToolEnded,
    Usage,
)
from worker.sidecars.spend import Prices
from worker.testing.chat_double import (
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    ChatDouble,
    Step,
    Trouble,
    Use,
    use,
)
from worker.testing.upstreams_kit import until


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., AgentTask]:
    """A run in a workspace of its own."""
    return partial(task_in, tmp_path)


# ---------------------------------------------------------------- a run


async def test_a_run_edits_a_file_and_says_what_it_used(task: Callable[..., AgentTask]) -> None:
    """The loop: tools are used in the workspace, each part is an event, the books add up."""
    double = ChatDouble(
        [
            Step("I look first.", (use("read_file", path="sum.py"),), reasoning="where is it?"),
            Step(calls=(use("edit_file", path="sum.py", old="a - b", new="a + b"), use("list_files", path="."))),
            Step("It adds now."),
        ]
    )
    given = task()
    (given.workspace / "sum.py").write_text("def add(a, b):\n    return a - b\n")
    async with sidecar(double, extra_body={"reasoning_effort": "low"}) as chat:
        events = await events_of(chat, given)
    assert (given.workspace / "sum.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert events[0] == Began("run-1", "glm-5")
    assert "".join(event.text for event in events if isinstance(event, Thought)) == "where is it?"
    parts = "".join(event.text for event in events if isinstance(event, Said) and event.is_part)
    assert parts == "I look first.It adds now."
    assert [event.name for event in events if isinstance(event, ToolBegan)] == ["read_file", "edit_file", "list_files"]
    assert not any(event.is_error for event in events if isinstance(event, ToolEnded))
    assert events[-1] == Result(
        Ending.SUCCEEDED,
        "It adds now.",
        session_id="run-1",
        turns=3,
        usage=Usage(3 * (PROMPT_TOKENS - CACHED_TOKENS), 3 * COMPLETION_TOKENS, 3 * CACHED_TOKENS),
        cost_usd=pytest.approx(3 * ONE_ANSWER_USD),
    )
    assert double.results()[1:] == ["sum.py is changed", "sum.py"]
    assert double.requests[0]["reasoning_effort"] == "low"
    assert double.headers[-1]["authorization"] == f"Bearer {KEY}"


async def test_usage_that_the_server_does_not_tell_is_counted_and_marked(task: Callable[..., AgentTask]) -> None:
    """Some servers send no usage: the budget holds all the same."""
    async with sidecar(ChatDouble([Step("four letters a token, more or less")], tells_usage=False)) as chat:
        result = await result_of(chat, task())
    assert result.usage.is_estimated
    assert result.usage.output == 9
    assert result.usage.input > 300, "the tools are read by the model too"
    assert result.cost_usd is not None
    assert result.cost_usd > 0


async def test_a_command_runs_in_the_sandbox_without_the_key(task: Callable[..., AgentTask]) -> None:
    """Commands see the workspace, and neither the node's environment nor a network."""
    command = "cat note; env; ls /proc/net/../../etc/shadow; cat /proc/net/dev | grep -c eth"
    double = ChatDouble([Step(calls=(use("run_command", command=command),)), Step("done")])
    given = task()
    (given.workspace / "note").write_text("seen\n")
    async with sidecar(double) as chat:
        assert (await result_of(chat, given)).ending is Ending.SUCCEEDED
    (told,) = double.results()
    assert told.startswith("seen\n"), told
    assert KEY not in told
    assert "PYTEST" not in told
    assert "exit status" in told


async def test_paths_that_lead_out_of_the_workspace_are_refused(task: Callable[..., AgentTask], tmp_path: Path) -> None:
    """No way of a model leads to the node's own files, nor into what git runs there."""
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    given = task()
    (given.workspace / "link").symlink_to(secret)
    (given.workspace / "folder").symlink_to(tmp_path)
    calls = (
        use("read_file", path="../secret"),
        use("read_file", path=str(secret)),
        use("read_file", path="link"),
        use("read_file", path="folder/secret"),
        use("write_file", path="link", content="x"),
        use("write_file", path="folder/new", content="x"),
        use("write_file", path=".git/hooks/pre-commit", content="x"),
        use("write_file", path="a\0b", content="x"),
        use("read_file", path="/workspace/../secret"),
    )
    double = ChatDouble([Step(calls=calls), Step("I could not")])
    async with sidecar(double) as chat:
        events = await events_of(chat, given)
    assert [event.is_error for event in events if isinstance(event, ToolEnded)] == [True] * len(calls)
    assert not any("of the node" in told for told in double.results())
    assert secret.read_text() == "of the node"
    assert not (tmp_path / "new").exists()
    assert not (given.workspace / ".git").exists()


async def test_a_call_that_is_wrong_is_told_to_the_model(task: Callable[..., AgentTask]) -> None:
    """Arguments that are no JSON, tools that are not there: the run goes on, and denials are named."""
    calls = (Use("read_file", '{"path": ', None), Use("read_file", "[]", None), use("rm", path="/"), use("write_file"))
    double = ChatDouble([Step(calls=calls), Step("done")])
    async with sidecar(double) as chat:
        result = await result_of(chat, task(denied_tools=("run_command",)))
    assert result.ending is Ending.SUCCEEDED
    assert result.denials == ("rm",)
    offered = [tool["function"]["name"] for tool in double.requests[0]["tools"]]
    assert offered == ["read_file", "list_files", "write_file", "edit_file"]
    assert all("the arguments of" in told or "there is no tool" in told for told in double.results())


async def test_a_session_goes_on_where_it_ended(task: Callable[..., AgentTask]) -> None:
    """A later run reads what the first said; a fork leaves it as it was; an unknown one is said so."""
    double = ChatDouble([Step("the word is plum"), Step("plum"), Step("plum again")])
    async with sidecar(double) as chat:
        first = await result_of(chat, task("remember: plum"))
        resumed = Session(SessionMode.RESUME, first.session_id)
        second = await result_of(chat, task("which word?", run="run-2", session=resumed))
        forked = Session(SessionMode.FORK, first.session_id)
        third = await result_of(chat, task("which?", run="run-3", session=forked))
        unknown = Session(SessionMode.RESUME, "../../etc/passwd")
        lost = await result_of(chat, task("which?", run="run-4", session=unknown))
    assert (first.session_id, second.session_id, third.session_id) == ("run-1", "run-1", "run-3")
    assert (second.text, third.text) == ("plum", "plum again")
    said = [message["content"] for message in double.requests[1]["messages"][1:]]
    assert said == ["remember: plum", "the word is plum", "which word?"]
    assert (lost.ending, lost.fault) == (Ending.FAILED, Fault.SESSION)


async def test_an_answer_that_has_to_fit_is_asked_for_once_more(task: Callable[..., AgentTask]) -> None:
    """Structured output is checked by us; a second wrong answer ends the run."""
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    async with sidecar(ChatDouble([Step("it is 4"), Step('```json\n{"sum": 4}\n```')])) as chat:
        good = await result_of(chat, task(output_schema=schema))
    async with sidecar(ChatDouble([Step("it is 4"), Step('{"sum": "4"}')])) as chat:
        bad = await result_of(chat, task(output_schema=schema))
    assert (good.ending, good.structured, good.turns) == (Ending.SUCCEEDED, {"sum": 4}, 2)
    assert (bad.ending, bad.fault) == (Ending.FAILED, Fault.PROTOCOL)
    assert "/sum" in bad.text


# ---------------------------------------------------------------- limits and cancel


async def test_turns_end_a_run(task: Callable[..., AgentTask]) -> None:
    """A model that never ends is asked as often as it may be."""
    double = ChatDouble([Step(calls=(use("list_files", path="."),))] * 9)
    async with sidecar(double) as chat:
        result = await result_of(chat, task(limits=RunLimits(wall_s=0, silence_s=0, turns=2)))
    assert (result.ending, result.fault, result.turns) == (Ending.LIMIT, Fault.TURNS, 2)
    assert len(double.requests) == 2


async def test_money_ends_a_run_before_the_request_that_it_cannot_pay(task: Callable[..., AgentTask]) -> None:
    """Nothing is asked without money, and no longer an answer than what is left can pay."""
    double = ChatDouble([Step(calls=(use("list_files", path="."),))] * 9)
    limit_usd = 2.2 * ONE_ANSWER_USD
    async with sidecar(double) as chat:
        result = await result_of(chat, task(limits=RunLimits(wall_s=0, silence_s=0, cost_usd=limit_usd)))
    assert (result.ending, result.fault) == (Ending.LIMIT, Fault.MONEY)
    assert result.cost_usd is not None
    assert result.cost_usd <= limit_usd
    longest = [asked["max_tokens"] for asked in double.requests]
    assert longest == sorted(longest, reverse=True)
    assert longest[0] * 3.2 / 1_000_000 < limit_usd


async def test_money_without_a_price_is_refused(task: Callable[..., AgentTask]) -> None:
    """A limit that nobody can keep is not taken."""
    double = ChatDouble([Step("ok")])
    async with sidecar(double, prices=Prices()) as chat:
        refused = await result_of(chat, task(limits=RunLimits(wall_s=0, silence_s=0, cost_usd=1.0)))
        free = await result_of(chat, task(run="run-2"))
    assert (refused.fault, free.ending, free.cost_usd) == (Fault.SETUP, Ending.SUCCEEDED, None)
    assert len(double.requests) == 1


@pytest.mark.parametrize("trouble", [Trouble(hangs=True), Trouble(stalls=True)], ids=["hangs", "stalls"])
async def test_a_run_is_cancelled_while_the_model_is_silent(task: Callable[..., AgentTask], trouble: Trouble) -> None:
    """Its Result comes at once and says so; what the broken answer cost is in it."""
    double = ChatDouble([Step("never heard")], tells_usage=False)
    heard: list[Event] = []

    async def listen(chat: OpenAIChat) -> None:
        async for event in guarded(chat, task(), SystemClock()):
            heard.append(event)  # noqa: PERF401 - what is heard until now is looked at meanwhile

    async with sidecar(double) as chat:
        double.always = trouble
        running = asyncio.create_task(listen(chat))
        await until(lambda: double.requests if trouble.hangs else any(isinstance(event, Said) for event in heard))
        await chat.cancel("run-1")
        await chat.cancel("unknown")
        await asyncio.wait_for(running, WAIT_S)
    result = heard[-1]
    assert isinstance(result, Result)
    assert (result.ending, result.fault) == (Ending.CANCELLED, None)
    assert result.usage.is_estimated is trouble.stalls


async def test_a_run_that_is_cancelled_leaves_no_process(task: Callable[..., AgentTask]) -> None:
    """A command ends with its run, and what it started with it."""
    given = task()
    command = "echo begun > begun; (sleep 98765; true) & sleep 98765"
    async with sidecar(ChatDouble([Step(calls=(use("run_command", command=command),))])) as chat:
        running = asyncio.create_task(result_of(chat, given))
        await until((given.workspace / "begun").exists)
        assert sleeping(given.workspace)
        await chat.cancel(given.run)
        assert (await running).ending is Ending.CANCELLED
    await until(lambda: not sleeping(given.workspace))


def sleeping(workspace: Path) -> list[str]:
    """Processes that stand in the workspace."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                words = (process / "cmdline").read_bytes()
                if b"bwrap" in words and str(workspace).encode() in words:
                    found.append(process.name)
            except OSError:
                continue
    return found


async def test_closing_who_listens_ends_the_run(task: Callable[..., AgentTask]) -> None:
    """The request is dropped when nobody waits for its events any more."""
    double = ChatDouble([Step("long")])
    async with sidecar(double) as chat:
        double.always = Trouble(stalls=True)
        async with aclosing(chat.run(task())) as events:  # type: ignore[type-var]
            assert isinstance(await anext(events), Began)
            await asyncio.wait_for(double.is_streaming.wait(), WAIT_S)
        double.always = None
        assert (await result_of(chat, task(run="run-2"))).ending is Ending.SUCCEEDED


async def test_reasoning_is_given_back_where_the_model_wants_it(task: Callable[..., AgentTask]) -> None:
    """GLM thinks on from what it thought; others refuse the field."""
    script = [Step(calls=(use("list_files", path="."),), reasoning="hm"), Step("done")]
    for returns, given_back in ((True, "hm"), (False, None)):
        double = ChatDouble(script)
        async with sidecar(double, returns_reasoning=returns) as chat:
            await result_of(chat, task())
        assert double.requests[1]["messages"][2].get("reasoning_content") == given_back
        assert json.dumps(double.requests[1]["messages"][2]["tool_calls"])
