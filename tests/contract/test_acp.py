"""Any agent of the Agent Client Protocol in a real sandbox: what it may do, what comes back, how it goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tasks.outcome import Failure
from tests.contract.acp_rig import KEY, ONE_ANSWER_USD, do, scripted
from worker.sidecars import acp_run
from worker.sidecars.acp_config import BASE_URL
from worker.testing.chat_double import Trouble
from worker.upstreams.errors import UpstreamError

pytestmark = pytest.mark.live("sandbox")


async def test_a_run_works_in_a_world_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, nothing of the node's environment; its variables and files are filled in; what it did comes back."""
    monkeypatch.setenv("A_SECRET_OF_THE_NODE", "not-to-be-seen")
    files = {".config/agent.json": {"url": "{base_url}/v1", "key": "{token}", "{model}": {"limit": 1}}}
    async with scripted(tmp_path, [do("show")], files=files) as at:
        answer = await at.call()
        assert at.processes() == []
    text = answer["content"][0]["text"]
    seen = json.loads(text)
    assert (answer["isError"], seen["uid"], seen["cwd"]) == (False, 1000, "/workspace")
    assert seen["environ"]["MODEL_URL"] == BASE_URL
    config = json.loads(seen["files"][".config/agent.json"])
    assert config == {"url": f"{BASE_URL}/v1", "key": seen["environ"]["MODEL_KEY"], "glm-5": {"limit": 1}}
    assert "/etc/shadow" not in text
    assert KEY not in text
    assert "not-to-be-seen" not in text


async def test_what_it_says_and_does_is_told_and_its_last_words_are_the_answer(tmp_path: Path) -> None:
    """Thoughts are no part of it, what it said before a tool is progress only."""
    steps = [
        do("think", text="hm"),
        do("say", text="I begin."),
        do("write", path="/workspace/hello.txt", text="hello"),
        do("say", text="It is written."),
    ]
    async with scripted(tmp_path, steps) as at:
        answer = await at.call()
    assert (answer["isError"], answer["content"][0]["text"]) == (False, "It is written.")
    assert at.lines == ["session scripted-1 with glm-5", "I begin.", "write: /workspace/hello.txt", "It is written."]
    assert answer["structuredContent"]["denials"] == []


async def test_what_nobody_allowed_is_denied_and_listed(tmp_path: Path) -> None:
    """By mode, by kind, by the agent's own name of a tool; what is denied stays denied whatever else is allowed."""
    steps = [do("write", path="/workspace/hello.txt", text="hello", kind="execute"), do("say", text="done")]
    cases = [
        ({}, ["write"]),
        ({"allowed_tools": ["execute"]}, []),
        ({"allowed_tools": ["Write"]}, []),
        ({"allowed_tools": ["write"], "denied_tools": ["execute"]}, ["write"]),
        ({"allowed_tools": ["read", "edit"]}, ["write"]),
        ({"permission_mode": "plan"}, ["write"]),
    ]
    async with scripted(tmp_path, steps) as at:
        for number, (said, denials) in enumerate(cases):
            answer = await at.call(invocation=f"inv-{number}", **said)
            assert (answer["isError"], answer["structuredContent"]["denials"]) == (False, denials), said


async def test_a_denied_tool_that_is_used_without_a_question_ends_the_run(tmp_path: Path) -> None:
    """An agent that does not ask is not kept from it by answers: the caller is told."""
    steps = [do("write", path="/workspace/hello.txt", text="hello", asks=False), do("wait")]
    async with scripted(tmp_path, steps) as at:
        answer = await at.call(denied_tools=["edit"])
        assert at.processes() == []
    assert (answer["isError"], answer["structuredContent"]["fault"]) == (True, "protocol")
    assert "must make it ask" in answer["content"][0]["text"]


async def test_model_traffic_is_metered_and_the_key_stays_outside(tmp_path: Path) -> None:
    """Tokens and cost are the node's count, of an OpenAI-compatible endpoint too."""
    async with scripted(tmp_path, [do("model", times=2)]) as at:
        answer = await at.call()
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["turns"]) == (False, 2)
    assert (structured["usage"]["input"], structured["usage"]["cache_read"]) == (1200, 800)
    assert structured["usage"]["output"] == 100
    assert structured["cost_usd"] == pytest.approx(2 * ONE_ANSWER_USD)
    assert {headers["authorization"] for headers in at.model.headers} == {f"Bearer {KEY}"}


async def test_limits_on_money_and_turns_are_the_nodes(tmp_path: Path) -> None:
    """The protocol has no words for them: the way out refuses the next request."""
    async with scripted(tmp_path, [do("model", times=9)]) as at:
        money = await at.call(max_cost_usd=1.5 * ONE_ANSWER_USD)
        turns = await at.call(max_turns=3, invocation="inv-2")
    assert (money["structuredContent"]["ending"], money["structuredContent"]["fault"]) == ("limit", "money")
    assert money["structuredContent"]["turns"] == 2
    assert (turns["structuredContent"]["ending"], turns["structuredContent"]["fault"]) == ("limit", "turns")
    assert turns["structuredContent"]["turns"] == 3


async def test_a_session_goes_on_and_costs_only_what_is_new(tmp_path: Path) -> None:
    """What is told of the past is no part of the answer; what the agent says it cost is a sum, the run's is not."""
    cost = do("update", sessionUpdate="usage_update", used=1, size=2, cost={"amount": 0.75, "currency": "USD"})
    async with scripted(tmp_path, [do("say", text="now"), cost]) as at:
        first = await at.call("remember plum ")
        session = first["structuredContent"]["session_id"]
        second = await at.call("which word?", session=session, invocation="inv-2")
        unknown = await at.call(session="scripted-9", invocation="inv-3")
        forked = await at.call(session=session, fork=True, invocation="inv-4")
        kept = (tmp_path / "state/sidecars/agent/sessions/none" / session / ".scripted" / session).read_text()
    assert first["structuredContent"]["cost_usd"] == pytest.approx(0.75)
    assert (second["isError"], second["content"][0]["text"]) == (False, "now")
    assert second["structuredContent"]["cost_usd"] == pytest.approx(0.25)
    assert kept == "remember plum which word?"
    assert unknown["structuredContent"]["fault"] == "session"
    assert (forked["structuredContent"]["fault"], "fork" in forked["content"][0]["text"]) == ("refused", True)


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    """Whether it heeds the protocol or nothing at all, SIGTERM neither."""
    for heeds in (True, False):
        async with scripted(tmp_path, [do("say", text="I wait."), do("think", text=""), do("wait", heeds=heeds)]) as at:
            running = asyncio.create_task(at.call())
            await at.until_line("session")
            assert at.processes() != []
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert at.processes() == []


async def test_silence_ends_a_run_with_what_it_said(tmp_path: Path) -> None:
    """It is asked to stop first, and killed where it does not."""
    for heeds in (False, True):
        folder = tmp_path / str(heeds)
        folder.mkdir()
        async with scripted(folder, [do("wait", heeds=heeds)], silence_s=3.0) as at:
            answer = await at.call()
            assert at.processes() == []
        assert (answer["structuredContent"]["ending"], answer["structuredContent"]["fault"]) == ("limit", "silence")
        asked = folder / "state/sidecars/agent/sessions/none/scripted-1/.scripted/cancelled.json"
        assert asked.exists() == heeds


async def test_a_refused_key_marks_the_node(tmp_path: Path) -> None:
    """The call may go elsewhere at once."""
    async with scripted(tmp_path, [do("model")]) as at:
        at.model.always = Trouble(status=401)
        with pytest.raises(UpstreamError) as refused:
            await at.call()
        assert (refused.value.info.code, refused.value.info.failure) == ("agent_auth", Failure.NOT_STARTED)
        assert "refused" in str(at.server.status().unhealthy)


async def test_a_spent_quota_waits_for_its_reset(tmp_path: Path) -> None:
    """It costs no try."""
    async with scripted(tmp_path, [do("model")]) as at:
        at.model.always = Trouble(status=429, headers={"retry-after": "1800"})
        with pytest.raises(UpstreamError) as spent:
            await at.call()
    assert (spent.value.info.code, spent.value.info.failure) == ("credential_spent", Failure.WAIT_UNTIL)


async def test_an_agent_that_waits_for_its_provider_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long waits are the fleet's: they free the slot."""
    monkeypatch.setattr(acp_run, "QUIET_S", 2.0)
    async with scripted(tmp_path, [do("model", gives_up=False), do("wait")]) as at:
        at.model.always = Trouble(status=429, headers={"retry-after": "1800"})
        with pytest.raises(UpstreamError) as spent:
            await at.call()
        assert at.processes() == []
    assert spent.value.info.code == "credential_spent"


async def test_the_model_is_handed_on(tmp_path: Path) -> None:
    """A model by the agent's own options where no template takes it; one that it does not offer is refused."""
    options = [{"id": "m", "category": "model", "type": "select", "name": "Model", "options": [{"value": "big"}]}]
    async with scripted(tmp_path, [do("show")], agent={"new": {"configOptions": options}}, model=None) as at:
        answer = await at.call(model="big")
        refused = await at.call(model="small", invocation="inv-2")
    files = json.loads(answer["content"][0]["text"])["files"]
    assert json.loads(files[".scripted/option.json"])["value"] == "big"
    assert json.loads(files[".scripted/new.json"]) == {"cwd": "/workspace", "mcpServers": []}
    assert json.loads(files[".scripted/initialize.json"])["clientCapabilities"]["terminal"] is False
    assert (refused["structuredContent"]["fault"], "small" in refused["content"][0]["text"]) == ("refused", True)


async def test_neither_files_nor_terminals_of_the_node_are_offered(tmp_path: Path) -> None:
    """Asked for all the same, they are unknown methods."""
    steps = [
        do("ask", method=method, params={"path": "/etc/shadow", "command": "id", "content": "", "terminalId": "1"})
        for method in ("fs/read_text_file", "fs/write_text_file", "terminal/create", "terminal/kill")
    ]
    async with scripted(tmp_path, steps) as at:
        answer = await at.call()
    assert answer["content"][0]["text"].count("-32601") == 4
