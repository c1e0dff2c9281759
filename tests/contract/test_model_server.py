"""The chat sidecar against a real small model behind a real server: llama.cpp's, by llama-cpp-python.

Its weights are random, so it says nonsense and never uses a tool; what is tried is everything around that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract.chat_rig import WAIT_S, result_of, task_in
from tests.contract.model_server_rig import ENDLESS, ENDS, MODEL, ModelServer, endpoint, model_server, sidecar, written
from tests.contract.tiny_model import CONTEXT
from worker.sidecars.bill import Bill
from worker.sidecars.openai_chat import OpenAIChat
from worker.sidecars.openai_chat_calls import Chatted, chat, generate_code, models
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.openai_chat_stream import tokens
from worker.sidecars.sidecar import AgentTask, Ending, Fault, Result, Said

pytestmark = [pytest.mark.model, pytest.mark.live("model-server")]

PROMPT = "say something"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a megabyte of random weights."""
    return written(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """One for all tests that leave it alive."""
    with model_server(tmp_path_factory.mktemp("server"), model) as running:
        yield running


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., AgentTask]:
    """A run in a workspace of its own."""
    return partial(task_in, tmp_path)


async def test_a_run_streams_and_ends_with_its_answer(server: ModelServer, task: Callable[..., AgentTask]) -> None:
    """What it says comes in parts, and together they are the answer."""
    async with sidecar(server) as at:
        events = [event async for event in at.run(task(PROMPT))]
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.ending, result.turns) == (Ending.SUCCEEDED, 1), result.text
    parts = [event.text for event in events if isinstance(event, Said) and event.is_part]
    assert len(parts) > 1
    assert "".join(parts) == result.text


async def test_usage_that_the_server_does_not_say_is_counted_and_says_so(server: ModelServer) -> None:
    """llama-cpp-python streams no usage, also when it is asked to."""
    bill = Bill()
    async with endpoint(server) as at:
        answer = await chat(at, PROMPT, bill=bill)
    assert isinstance(answer, Chatted)
    assert answer.finish == "stop"
    assert answer.usage.is_estimated
    assert answer.usage.input >= tokens(len(PROMPT))
    assert answer.usage.output == tokens(len(answer.text.encode()))
    assert bill.usage == answer.usage


async def test_its_model_is_listed(server: ModelServer) -> None:
    """By the name that requests give."""
    async with endpoint(server) as at:
        assert await models(at) == (MODEL,)


async def test_a_cancelled_run_frees_the_server(server: ModelServer, task: Callable[..., AgentTask]) -> None:
    """It computes one answer at a time: the next one comes, because it stops with the one that nobody wants."""
    async with sidecar(server, extra_body=ENDLESS) as endless, endpoint(server) as at:
        cancelled = await _cancelled_at_its_first_word(endless, task(PROMPT))
        assert (cancelled.ending, cancelled.usage.is_estimated) == (Ending.CANCELLED, True)
        async with asyncio.timeout(WAIT_S):
            assert isinstance(await chat(at, PROMPT), Chatted)


async def test_two_answers_at_once_are_both_whole(server: ModelServer) -> None:
    """One waits for the other."""
    async with endpoint(server) as at:
        both = await asyncio.gather(*(chat(at, f"{PROMPT} {number}") for number in range(2)))
    assert [each.finish if isinstance(each, Chatted) else each for each in both] == ["stop", "stop"]


async def test_more_than_it_reads_is_the_callers_fault(server: ModelServer, task: Callable[..., AgentTask]) -> None:
    """The server counts and refuses; the run says what to do, and it is not asked again."""
    async with sidecar(server) as at:
        result = await result_of(at, task("x " * CONTEXT))
    assert (result.ending, result.fault) == (Ending.FAILED, Fault.CONTEXT)
    assert "give it less" in result.text


async def test_an_answer_that_fills_the_context_is_no_success(
    server: ModelServer, task: Callable[..., AgentTask]
) -> None:
    """Cut off at its longest."""
    async with sidecar(server, extra_body=ENDLESS, output_tokens=32) as at:
        result = await result_of(at, task(PROMPT))
    assert (result.ending, result.fault) == (Ending.FAILED, Fault.CONTEXT)
    assert "cut off" in result.text


@pytest.mark.parametrize(("said", "why"), [(ENDS, "JSON"), (ENDLESS, "cut off")], ids=["nonsense", "too-long"])
async def test_code_that_does_not_fit_is_a_failure_that_says_why(
    server: ModelServer, tmp_path: Path, said: dict[str, Any], why: str
) -> None:
    """Asked for twice, and nothing of it is written; what it cost is on the bill."""
    bill = Bill()
    async with endpoint(server, extra_body=said, output_tokens=64) as at:
        trouble = await generate_code(at, "a file", workspace=tmp_path, bill=bill)
    assert isinstance(trouble, Trouble)
    assert trouble.fault is Fault.PROTOCOL
    assert why in trouble.message
    assert "also when asked again" in trouble.message
    assert list(tmp_path.iterdir()) == []
    assert bill.usage.output > 0


async def test_a_server_that_dies_while_it_answers_is_told(
    model: Path, tmp_path: Path, task: Callable[..., AgentTask]
) -> None:
    """Killed in the middle of a word: what it had said is counted, and it is asked again in vain."""
    with model_server(tmp_path, model) as dying:
        async with sidecar(dying, extra_body=ENDLESS) as at:
            events = at.run(task(PROMPT))
            async with asyncio.timeout(WAIT_S):
                while not isinstance(await anext(events), Said):
                    pass
                dying.process.kill()
                result = [event async for event in events][-1]
    assert isinstance(result, Result)
    assert (result.ending, result.fault) == (Ending.FAILED, Fault.UNREACHABLE)
    assert "does not answer" in result.text
    assert result.usage.output > 0


async def _cancelled_at_its_first_word(sidecar: OpenAIChat, task: AgentTask) -> Result:
    async with asyncio.timeout(WAIT_S):
        async for event in sidecar.run(task):
            if isinstance(event, Said):
                await sidecar.cancel(task.run)
            if isinstance(event, Result):
                return event
    raise AssertionError("the run has no result")
