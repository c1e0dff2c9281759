"""A chat model as a node offers it: its tools, over the real library to a double of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SettingsError
from tasks.outcome import Failure
from tests.contract.chat_node import KEY, called, glm
from worker.sidecars.sidecars_file import parse_sidecars
from worker.testing.chat_double import ChatDouble, Step, Trouble, use
from worker.upstreams.errors import UpstreamError


async def test_four_tools_are_offered_and_answer(tmp_path: Path) -> None:
    """An agent, an answer, files, and the models; the key goes to the endpoint."""
    files = '{"files": [{"path": "a.py", "content": "a = 1"}], "notes": "one file"}'
    model = ChatDouble([Step("it is 4")], models=("glm-5", "glm-5-air"))
    async with glm(tmp_path, model) as server:
        assert [spec.name for spec in server.tools()] == ["glm.run", "glm.chat", "glm.generate_code", "glm.models"]
        assert (await called(server, "chat", prompt="2 + 2?"))["content"][0]["text"] == "it is 4"
        assert (await called(server, "models"))["structuredContent"]["models"] == ["glm-5", "glm-5-air"]
        model.script = [Step(files)]
        made = await called(server, "generate_code", prompt="a file")
        assert made["structuredContent"]["files"] == [{"path": "a.py", "content": "a = 1"}]
        model.script = [Step(calls=(use("write_file", path="b.txt", content="b"),)), Step("written")]
        run = await called(server, "run", prompt="write b.txt")
        assert (run["isError"], run["content"][0]["text"]) == (False, "written")
    assert {headers["authorization"] for headers in model.headers} == {f"Bearer {KEY}"}


async def test_a_spent_quota_waits_for_its_reset(tmp_path: Path) -> None:
    """It costs no try; the next call does not even ask."""
    model = ChatDouble([])
    async with glm(tmp_path, model) as server:
        model.always = Trouble(status=429, headers={"retry-after": "900"})
        with pytest.raises(UpstreamError) as spent:
            await called(server, "chat", prompt="2 + 2?")
        assert (spent.value.info.failure, spent.value.info.retry_after_s) == (
            Failure.WAIT_UNTIL,
            pytest.approx(900, abs=30),
        )
        asked = len(model.requests)
        with pytest.raises(UpstreamError, match="is spent for another"):
            await called(server, "run", prompt="anything")
        assert len(model.requests) == asked


async def test_a_refused_key_marks_the_node(tmp_path: Path) -> None:
    """Until the file holds another one."""
    model = ChatDouble([Step("well again")])
    async with glm(tmp_path, model) as server:
        model.always = Trouble(status=401)
        with pytest.raises(UpstreamError) as refused:
            await called(server, "chat", prompt="2 + 2?")
        assert refused.value.info.failure is Failure.NOT_STARTED
        assert "is refused" in str(server.status().unhealthy)
        model.always = None
        (tmp_path / "key").write_text("another-one")
        assert server.status().unhealthy is None
        assert (await called(server, "chat", prompt="2 + 2?"))["content"][0]["text"] == "well again"


@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        ("run", {}, "prompt: Field required"),
        ("run", {"prompt": "a\0b"}, "holds a NUL"),
        ("run", {"prompt": "x" * 1_000_001}, "at most 1000000 characters"),
        ("run", {"prompt": "x", "fork": True}, "fork needs a session"),
        ("chat", {"prompt": ""}, "at least 1 character"),
        ("models", {"prompt": "x"}, "Extra inputs"),
    ],
)
async def test_wrong_arguments_are_named(tmp_path: Path, tool: str, arguments: dict[str, Any], named: str) -> None:
    """Before anything is asked of the model."""
    model = ChatDouble([])
    async with glm(tmp_path, model) as server:
        with pytest.raises(UpstreamError, match=named) as wrong:
            await called(server, tool, **arguments)
    assert (wrong.value.info.code, wrong.value.info.failure) == ("invalid_arguments", Failure.PERMANENT)
    assert model.requests == []


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"kind": "gpt"}, "known are claude_code, openai_chat"),
        ({"kind": "openai_chat", "url": "ftp://x", "model": "m"}, "url"),
        ({"kind": "openai_chat", "url": "http://x", "model": "m", "temperature": 1}, "temperature: Extra"),
        ({"kind": "claude_code", "version": "1", "binary": "/x"}, "key_file: Field required"),
    ],
)
def test_a_wrong_line_is_named(said: dict[str, Any], named: str) -> None:
    """With the sidecar it belongs to."""
    with pytest.raises(SettingsError, match=named):
        parse_sidecars({"glm": said}, "servers.json: sidecars")
