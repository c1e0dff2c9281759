"""Every way in which a chat endpoint fails, over a loopback port, by the real client library."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tasks.clock import SystemClock
from tests.contract.chat_rig import KEY, backend, chat_of, endpoint, events_of, result_of, sidecar, task_in
from worker.sidecars.openai_chat_backend import ChatEndpoint
from worker.sidecars.sidecar import AgentTask, Ending, Fault, Result, Retrying
from worker.testing.chat_double import COMPLETION_TOKENS, ChatDouble, Step, Trouble
from worker.testing.upstreams_kit import served


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., AgentTask]:
    """A run in a workspace of its own."""
    return partial(task_in, tmp_path)


FAULTS = [
    ("401", Trouble(401, message="bad key"), Fault.AUTH, "give the backend a valid one", 1),
    ("402", Trouble(402), Fault.AUTH, "top it up", 1),
    ("403", Trouble(403), Fault.AUTH, "check its rights", 1),
    ("404", Trouble(404, message="no model glm-5"), Fault.REFUSED, "`models` lists them", 1),
    ("400", Trouble(400, message="bad field"), Fault.REFUSED, "bad field", 1),
    ("too-long", Trouble(400, code="context_length_exceeded"), Fault.CONTEXT, "give it less", 1),
    ("too-long-llama", Trouble(400, message="exceeds the available context size"), Fault.CONTEXT, "give it less", 1),
    ("too-long-glm", Trouble(400, code="1261", message="Prompt 超长"), Fault.CONTEXT, "give it less", 1),
    ("too-long-in-silence", Trouble(says_nothing=True, code="context_length_exceeded"), Fault.CONTEXT, "less", 2),
    ("413", Trouble(413), Fault.CONTEXT, "give it less", 1),
    ("429-long", Trouble(429, {"retry-after": "3600"}), Fault.QUOTA, "again in 3600 s", 1),
    ("429", Trouble(429, {"retry-after": "0"}), Fault.QUOTA, "nothing left for now", 3),
    ("429-no-money-glm", Trouble(429, code="1113"), Fault.AUTH, "top it up", 1),
    ("429-busy-glm", Trouble(429, code="1305"), Fault.OVERLOADED, "call again later", 3),
    ("500", Trouble(500), Fault.PROVIDER_FAILED, "look at its log", 3),
    ("503", Trouble(503, {"retry-after": "nonsense"}), Fault.PROVIDER_FAILED, "call again later", 3),
    ("503-named", Trouble(503, {"retry-after": "0"}), Fault.OVERLOADED, "call again later", 3),
    ("529", Trouble(529), Fault.OVERLOADED, "call again later", 3),
    ("garbage", Trouble(garbage="{not json"), Fault.PROTOCOL, "no chat completion", 3),
    ("garbage-list", Trouble(garbage='["a"]'), Fault.PROTOCOL, "no chat completion", 3),
    ("garbage-choices", Trouble(garbage='{"choices": [{"delta": "x"}]}'), Fault.PROTOCOL, "no chat completion", 3),
    ("endless", Trouble(endless=True), Fault.PROTOCOL, "without an end", 3),
    ("breaks", Trouble(breaks=True), Fault.UNREACHABLE, "does not answer", 3),
    ("ends-early", Trouble(ends_early=True), Fault.PROTOCOL, "broke off", 3),
    ("error-inside", Trouble(error_inside=True), Fault.PROVIDER_FAILED, "broke off", 3),
    ("a-page", Trouble(is_page=True), Fault.PROTOCOL, "base_url", 1),
]


@pytest.mark.parametrize(
    ("trouble", "fault", "says", "requests"), [case[1:] for case in FAULTS], ids=[c[0] for c in FAULTS]
)
async def test_a_failure_says_whose_it_is_and_what_to_do(
    task: Callable[..., AgentTask], trouble: Trouble, fault: Fault, says: str, requests: int
) -> None:
    """Each way in which an endpoint fails has its fault; only what may pass is asked again."""
    double = ChatDouble([Step("ok")])
    async with sidecar(double) as chat:
        double.always = trouble
        events = await events_of(chat, task())
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.ending, result.fault) == (Ending.FAILED, fault), result.text
    assert says in result.text
    assert KEY not in result.text
    assert len(double.requests) == requests
    assert sum(isinstance(event, Retrying) for event in events) == (0 if trouble.says_nothing else requests - 1)
    if "retry-after" in trouble.headers and fault is Fault.QUOTA:
        assert result.retry_after_s == float(trouble.headers["retry-after"])


@pytest.mark.parametrize("trouble", [Trouble(hangs=True), Trouble(stalls=True)], ids=["hangs", "stalls"])
async def test_an_endpoint_that_falls_silent_is_given_up(task: Callable[..., AgentTask], trouble: Trouble) -> None:
    """Silence has an end of its own, before the run's."""
    double = ChatDouble([Step("ok")])
    async with sidecar(double, stall_s=0.5) as chat:
        double.always = trouble
        result = await result_of(chat, task())
    assert (result.ending, result.fault) == (Ending.FAILED, Fault.UNREACHABLE)
    assert "said nothing for 0.5 s" in result.text
    assert len(double.requests) == 3


async def test_what_an_endpoint_that_streams_nothing_answers_is_paid(task: Callable[..., AgentTask]) -> None:
    """It is asked why, without a stream, and answers: that costs, though nobody can use it."""
    double = ChatDouble([Step("never")])
    async with sidecar(double) as chat:
        double.always = Trouble(says_nothing=True)
        result = await result_of(chat, task())
    asked = sum(not request.get("stream") for request in double.requests)
    assert (result.fault, result.usage.output) == (Fault.PROTOCOL, asked * COMPLETION_TOKENS)
    assert asked > 0


async def test_a_failure_that_passes_is_no_failure(task: Callable[..., AgentTask]) -> None:
    """Asked again after one break and one refusal; what the broken answer cost is paid."""
    double = ChatDouble([Step("here I am")])
    async with sidecar(double) as chat:
        double.troubles = [Trouble(breaks=True), Trouble(429, {"retry-after": "0"})]
        events = await events_of(chat, task())
    assert [(event.attempt, event.status) for event in events if isinstance(event, Retrying)] == [(1, None), (2, 429)]
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.ending, result.text, result.turns) == (Ending.SUCCEEDED, "here I am", 1)
    assert result.usage.is_estimated
    assert result.usage.output > COMPLETION_TOKENS


FINISHES = {"length": Fault.CONTEXT, "sensitive": Fault.REFUSED, "model_context_window_exceeded": Fault.CONTEXT}


@pytest.mark.parametrize("finish", FINISHES)
async def test_an_answer_that_ended_badly_is_no_success(task: Callable[..., AgentTask], finish: str) -> None:
    """Cut off, or held back: the words until then are no answer."""
    async with sidecar(ChatDouble([Step("half of", finish=finish)])) as chat:
        result = await result_of(chat, task())
    assert (result.ending, result.fault) == (Ending.FAILED, FINISHES[finish])


async def test_an_empty_answer_is_asked_for_again_and_then_a_failure(task: Callable[..., AgentTask]) -> None:
    """A result without a result is none."""
    async with sidecar(ChatDouble([Step(), Step("now")])) as chat:
        assert (await result_of(chat, task())).text == "now"
    async with sidecar(ChatDouble([Step(), Step()])) as chat:
        assert (await result_of(chat, task(run="run-2"))).fault is Fault.PROTOCOL


async def test_more_than_the_model_reads_is_not_sent(task: Callable[..., AgentTask]) -> None:
    """Ten megabytes for a model of 16,000 tokens: said here, not there."""
    double = ChatDouble([Step("ok")])
    async with sidecar(double, context_tokens=16_000) as chat:
        result = await result_of(chat, task("ab\0\ud800" * 2_500_000))
        small = await result_of(chat, task("a\0\ud800", run="run-2"))
    assert (result.fault, small.ending) == (Fault.CONTEXT, Ending.SUCCEEDED)
    assert len(double.requests) == 1


async def test_an_endpoint_that_is_not_there_is_not_ready(task: Callable[..., AgentTask], tmp_path: Path) -> None:
    """Nobody listens, or the key is refused: the node does not offer the tool, and says why."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        gone = ChatEndpoint(backend(url), SystemClock())
        chat = chat_of(gone, tmp_path)
        health = await chat.start()
        result = await result_of(chat, task())
        await chat.close()
    assert not health.is_ready
    assert url in (health.why_not or "")
    assert result.fault is Fault.SETUP
    double = ChatDouble([])
    double.always = Trouble(401)
    async with endpoint(double) as made:
        assert "401" in ((await chat_of(made, tmp_path).start()).why_not or "")
    double.always = Trouble(500)
    async with endpoint(double) as made:
        assert (await chat_of(made, tmp_path).start()).is_ready, "some servers have no list of models"


async def test_an_endpoint_that_goes_away_is_unreachable(task: Callable[..., AgentTask], tmp_path: Path) -> None:
    """Refused connections are no defect of the run."""
    async with served(ChatDouble([]).app) as port:
        made = ChatEndpoint(backend(f"http://127.0.0.1:{port}/v1"), SystemClock(), draw=lambda: 0.5)
        chat = chat_of(made, tmp_path)
        assert (await chat.start()).is_ready
    result = await result_of(chat, task())
    await chat.close()
    assert (result.ending, result.fault) == (Ending.FAILED, Fault.UNREACHABLE)
    assert "base_url" in result.text
