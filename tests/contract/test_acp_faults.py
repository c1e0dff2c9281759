"""Agents that do not do as the protocol says: each run ends, with a word for why, and nothing of it is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.outcome import Failure
from tests.contract.acp_rig import do, scripted
from worker.upstreams.errors import UpstreamError

pytestmark = pytest.mark.live("sandbox")

GARBAGE = "this is no JSON\n"
QUESTION = '{"jsonrpc": "2.0", "id": 1, "method": "fs/read_text_file", "params": {}}\n'
NO_MESSAGES = '[1]\n7\n{"id": [], "result": 1}\n{"id": 2, "error": "x"}\n{"id": 2}\n{"method": 1, "id": 2}\n'


@pytest.mark.parametrize(
    ("steps", "more", "expected"),
    [
        ([do("raw", text=GARBAGE, times=3), do("say", text="well")], {}, ("succeeded", None, "well")),
        ([do("raw", text=NO_MESSAGES), do("say", text="well")], {}, ("succeeded", None, "well")),
        ([do("raw", text=GARBAGE, times=30), do("wait")], {}, ("failed", "protocol", "no messages of ACP")),
        ([do("flood", bytes=1_000_000_000)], {}, ("failed", "protocol", "a line of more than")),
        ([do("say", text="I"), do("exit", status=3)], {}, ("failed", "protocol", "status 3")),
        ([do("say", text="I"), do("exit", status=0)], {}, ("failed", "protocol", "status 0")),
        ([do("complain", text="no such thing"), do("exit", status=1)], {}, ("failed", "protocol", "no such thing")),
        ([do("raw", text=QUESTION, times=500), do("wait")], {}, ("failed", "protocol", "listens to no answer")),
        ([do("say", text="I")], {"stays": True}, ("succeeded", None, "I")),
        ([do("update", sessionUpdate="of tomorrow", x=[1])], {}, ("succeeded", None, "")),
        ([do("update", sessionUpdate="agent_message_chunk", content=7)], {}, ("succeeded", None, "")),
        ([], {"stop": "max_tokens"}, ("failed", "context", "smaller task")),
        ([], {"stop": "max_turn_requests"}, ("limit", "turns", "requests")),
        ([], {"stop": "refusal"}, ("failed", "refused", "another way")),
        ([], {"stop": "of tomorrow"}, ("failed", "protocol", "of tomorrow")),
    ],
)
async def test_a_run_that_goes_wrong_is_an_answer_that_says_so(
    tmp_path: Path, steps: list[dict[str, Any]], more: dict[str, Any], expected: tuple[str, str | None, str]
) -> None:
    """Its text tells what happened; the node and its next run are well."""
    async with scripted(tmp_path, steps, agent=more) as at:
        answer = await at.call()
        assert at.processes() == []
    structured = answer["structuredContent"]
    assert (structured["ending"], structured["fault"]) == expected[:2]
    assert expected[2] in answer["content"][0]["text"]


@pytest.mark.parametrize(
    ("agent", "entry", "said"),
    [
        ({"initialize": {"protocolVersion": 2}}, {}, "speaks version 2 of ACP"),
        ({"initialize": {"agentInfo": {"name": "x", "version": "2.0"}}}, {"version": "1.0"}, "wanted is 1.0"),
        ({"refuses": {"code": -32000, "message": "Authentication required"}}, {}, "it wants a login"),
        ({"refuses": {"code": -32603, "message": "no config", "data": {"details": "line 3"}}}, {}, "line 3"),
        ({}, {"command": ["python3", "-c", "print('hello')"]}, "'hello'"),
        ({}, {"command": ["python3", "-c", "import nothing"]}, "No module named"),
        ({}, {"files": {"a": "1", "a/b": "2"}}, "could not be written"),
    ],
)
async def test_an_agent_that_does_not_get_ready_is_an_operators_matter(
    tmp_path: Path, agent: dict[str, Any], entry: dict[str, Any], said: str
) -> None:
    """Nothing was done: the call may go to another node, and the message says what to mend here."""
    async with scripted(tmp_path, [do("say", text="well")], agent=agent, **entry) as at:
        with pytest.raises(UpstreamError) as failed:
            await at.call()
        assert at.processes() == []
    assert (failed.value.info.code, failed.value.info.failure) == ("agent_setup", Failure.NOT_STARTED)
    assert said in failed.value.info.message


async def test_an_agent_that_is_not_there_is_not_offered(tmp_path: Path) -> None:
    """The node says what is missing."""
    nowhere = {"read_only": {str(tmp_path / "nowhere"): "/opt/agent"}}
    unknown: dict[str, Any] = {"command": ["no-such-agent"]}
    for entry, said in ((nowhere, "is not there"), (unknown, "not in the sandbox")):
        async with scripted(tmp_path, **entry) as at:
            assert at.server.tools() == ()
            assert said in str(at.server.status().error)


async def test_a_session_behind_a_link_is_not_kept(tmp_path: Path) -> None:
    """What the agent left in its HOME leads nobody to files of the node."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "key").write_text("not-to-be-kept")
    for number, path in enumerate((".scripted", ".scripted/key")):
        link = do("link", path=".scripted", to=str(secrets))
        async with scripted(tmp_path, [link], sessions=[path]) as at:
            answer = await at.call(invocation=f"inv-{number}")
        assert (answer["isError"], answer["structuredContent"]["session_id"]) == (False, None)


async def test_an_agent_that_reads_nothing_is_ended_all_the_same(tmp_path: Path) -> None:
    """Its prompt does not fit into the pipe, nor does the word that it is to stop."""
    async with scripted(tmp_path, agent={"is_deaf": True}, silence_s=4.0) as at:
        answer = await at.call("x" * 900_000)
        assert at.processes() == []
    assert (answer["structuredContent"]["ending"], answer["structuredContent"]["fault"]) == ("limit", "silence")
