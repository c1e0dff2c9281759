"""`chat`, `generate_code` and `models` against the real client library and a double of the API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tasks.clock import SystemClock
from tasks.retry import RetryPolicy
from worker.sidecars.openai_chat_backend import ChatBackend, ChatEndpoint, Listener
from worker.sidecars.openai_chat_calls import Chatted, CodeFile, Generated, chat, generate_code, models
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.openai_chat_stream import Part
from worker.sidecars.sidecar import Fault, Usage
from worker.sidecars.spend import Price, Prices
from worker.testing import chat_double
from worker.testing.chat_double import CACHED_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS, ChatDouble, Step
from worker.testing.upstreams_kit import served

ONE = Usage(PROMPT_TOKENS - CACHED_TOKENS, COMPLETION_TOKENS, CACHED_TOKENS)


@asynccontextmanager
async def endpoint(double: ChatDouble, **more: Any) -> AsyncIterator[ChatEndpoint]:
    """Over a real socket."""
    async with served(double.app) as port:
        backend = ChatBackend(
            name="glm",
            base_url=f"http://127.0.0.1:{port}/v1",
            model="glm-5",
            key=lambda: "not-a-secret",
            prices=Prices({"glm-5": Price(input=1.0, output=3.2, cache_read=0.2)}),
            retry=RetryPolicy(attempts=2, first_wait_s=0.0, cap_s=0.0),
            **more,
        )
        made = ChatEndpoint(backend, SystemClock(), draw=lambda: 0.5)
        try:
            yield made
        finally:
            await made.close()


class Heard(Listener):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.text = ""

    def part(self, part: Part) -> None:
        """A part of the answer."""
        self.text += part.text


def code(*files: tuple[str, str]) -> str:
    """An answer that fits."""
    return json.dumps({"files": [{"path": path, "content": content} for path, content in files], "notes": "so"})


async def test_chat_answers_a_prompt_and_messages() -> None:
    """Text, reasoning, tokens and money; the parts are heard as they come."""
    double, heard = ChatDouble([Step("hello there", reasoning="greet"), Step("again")]), Heard()
    async with endpoint(double, extra_body={"reasoning_effort": "max"}) as glm:
        said = await chat(glm, "hi", extra_body={"reasoning_effort": "low"}, listener=heard)
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "again"},
        ]
        more = await chat(glm, messages, model="other")
    assert said == Chatted("hello there", "greet", "stop", "glm-5", ONE, (600 + 400 * 0.2 + 50 * 3.2) / 1_000_000)
    assert heard.text == "hello there"
    assert isinstance(more, Chatted)
    assert (more.text, more.model, more.cost_usd) == ("again", "other", None)
    assert [asked["reasoning_effort"] for asked in double.requests] == ["low", "max"]


async def test_chat_without_messages_or_with_strange_ones_is_refused() -> None:
    """Said here, before anything is sent."""
    double = ChatDouble([])
    async with endpoint(double) as glm:
        for wrong in ([], [{"role": "tool", "content": "x"}], [{"role": "user", "content": 1}], [{}]):
            said = await chat(glm, wrong)
            assert isinstance(said, Trouble)
            assert said.fault is Fault.REFUSED
    assert not double.requests


async def test_generated_files_are_written_only_when_asked(tmp_path: Path) -> None:
    """Without a workspace they are an answer; with one they are files, and no path leads out."""
    answer = code(("src/a.py", "A = 1\n"), ("../b.py", "B"), ("/etc/c", "C"), (".git/config", "D"), ("link/e", "E"))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "link").symlink_to(tmp_path)
    async with endpoint(ChatDouble([Step(answer)])) as glm:
        kept = await generate_code(glm, "write a")
        assert isinstance(kept, Generated)
        assert kept.applied == kept.refused == ()
        assert sorted(path.name for path in workspace.iterdir()) == ["link"]
        written = await generate_code(glm, "write a", workspace=workspace)
    assert isinstance(written, Generated)
    assert written.files[0] == CodeFile("src/a.py", "A = 1\n")
    assert (written.applied, len(written.refused), written.notes) == (("src/a.py",), 4, "so")
    assert (workspace / "src/a.py").read_text() == "A = 1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["workspace"]


async def test_code_that_does_not_fit_is_asked_for_once_more() -> None:
    """The second answer counts; a second that does not fit is a failure that says why."""
    async with endpoint(ChatDouble([Step("sure! here it is"), Step(f"```json\n{code(('a', 'b'))}\n```")])) as glm:
        good = await generate_code(glm, "write a")
    wrong = Step('{"files": [{"path": 1}], "notes": ""}')
    double = ChatDouble([Step("sure!"), wrong, Step(code())])
    async with endpoint(double) as glm:
        bad = await generate_code(glm, "write a")
    assert isinstance(good, Generated)
    assert (good.files, good.usage) == ((CodeFile("a", "b"),), ONE + ONE)
    assert isinstance(bad, Trouble)
    assert bad.fault is Fault.PROTOCOL
    assert "/files/0" in bad.message
    assert len(double.requests) == 2


async def test_code_that_was_cut_off_is_no_code() -> None:
    """Also where what there is of it happens to fit."""
    async with endpoint(ChatDouble([Step(code(("a", "b")), finish="length")] * 2)) as glm:
        said = await generate_code(glm, "write a")
    assert isinstance(said, Trouble)
    assert "cut off" in said.message


async def test_models_are_listed_and_a_refusal_is_said() -> None:
    """Their names; why not, where there are none."""
    double = ChatDouble([], models=["glm-5", "glm-4.7"])
    async with endpoint(double) as glm:
        assert await models(glm) == ("glm-4.7", "glm-5")
        for fault, trouble in (
            (Fault.AUTH, chat_double.Trouble(401)),
            (Fault.PROVIDER_FAILED, chat_double.Trouble(500)),
            (Fault.PROTOCOL, chat_double.Trouble(is_page=True)),
        ):
            double.always = trouble
            said = await models(glm)
            assert isinstance(said, Trouble)
            assert said.fault is fault
