"""An ACP agent asks a person: the person is played, the agent is of a script, all between is real."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.acp_rig import AcpBench, do, scripted
from tests.contract.person import NO, YES, Person

pytestmark = pytest.mark.live("sandbox")

WRITE = do("write", path="/workspace/hello.txt", text="hello", kind="execute")
ALL = [WRITE, do("say", text="done"), do("show")]


def _seen(answer: dict[str, Any]) -> dict[str, Any]:
    """What the agent said in the end, of what it was answered."""
    said: dict[str, Any] = json.loads(answer["content"][0]["text"].removeprefix("done"))["files"]
    return json.loads(said[".scripted/outcome.json"])


async def _until_asked(person: Person) -> None:
    async with asyncio.timeout(60):
        while not person.asked:  # noqa: ASYNC110 - asked by callback
            await asyncio.sleep(0.01)


async def test_a_person_is_asked_with_the_exact_arguments_and_a_yes_is_for_once(tmp_path: Path) -> None:
    """Title, kind and input as the agent says them; its offer of a lasting yes is never taken."""
    person = Person(YES)
    async with scripted(tmp_path, ALL, approvals={"wait_s": 60, "mode": "free"}) as at:
        at.approver = person
        answer = await at.call(permission_mode="ask")
    (question,) = person.asked
    told = {"kind": "execute", "title": "/workspace/hello.txt", "rawInput": {"path": "/workspace/hello.txt"}}
    assert (question.tool, json.loads(question.arguments_json)) == ("write", told)
    assert person.terms == [(60.0, True)]
    assert _seen(answer) == {"outcome": "selected", "optionId": "allow_once"}
    assert (answer["isError"], answer["structuredContent"]["denials"]) == (False, [])
    assert any("waits for a person: may it use write" in line and "approvals show q0" in line for line in at.lines)
    assert "write is allowed" in at.lines


async def test_a_no_is_for_once_too_and_is_listed(tmp_path: Path) -> None:
    """The run goes on without it."""
    async with scripted(tmp_path, ALL) as at:
        at.approver = Person(NO)
        answer = await at.call(permission_mode="ask")
    assert _seen(answer) == {"outcome": "selected", "optionId": "reject_once"}
    assert (answer["isError"], answer["structuredContent"]["denials"]) == (False, ["write"])


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({"allowed_tools": ["execute"]}, "allow_once"),
        ({"allowed_tools": ["write"]}, "allow_once"),
        ({"denied_tools": ["write"]}, "reject_once"),
        ({"allowed_tools": ["write"], "denied_tools": ["execute"]}, "reject_once"),
    ],
)
async def test_what_the_call_named_is_asked_of_nobody(tmp_path: Path, said: dict[str, Any], chosen: str) -> None:
    """Only what is neither allowed nor denied is a person's to say."""
    person = Person()
    async with scripted(tmp_path, ALL) as at:
        at.approver = person
        answer = await at.call(permission_mode="ask", **said)
    assert (person.asked, _seen(answer)["optionId"]) == ([], chosen)


async def test_nobody_to_ask_is_a_no(tmp_path: Path) -> None:
    """A call that did not come through the fleet has nobody; nor is anybody asked for what cannot be allowed once."""
    for_ever = do("write", path="/workspace/a", text="", offers=["allow_always", "reject_always"])
    async with scripted(tmp_path, ALL) as at:
        answer = await at.call(permission_mode="ask")
        assert _seen(answer)["optionId"] == "reject_once"
    person = Person()
    async with scripted(tmp_path, [for_ever, *ALL[1:]]) as at:
        at.approver = person
        answer = await at.call(permission_mode="ask")
    assert (person.asked, _seen(answer)["optionId"]) == ([], "reject_always")
    assert answer["structuredContent"]["denials"] == ["write"]


@pytest.mark.parametrize(
    ("step", "answers", "why"),
    [
        ({"asks": False, "kind": "execute"}, (), "used write without asking"),
        ({"asks": False, "kind": "other"}, (), "used write without asking"),
        ({"heeds": False}, (NO,), "used write, which was denied"),
        ({"in_truth": "/workspace/other.txt"}, (YES,), "used write with another input than it had asked for"),
    ],
)
async def test_an_agent_that_does_not_wait_for_the_answer_ends_its_run(
    tmp_path: Path, step: dict[str, Any], answers: tuple[Any, ...], why: str
) -> None:
    """It cannot be kept from it by answers, so the caller is told what it did."""
    async with scripted(tmp_path, [WRITE | step, do("wait")]) as at:
        at.approver = Person(*answers)
        answer = await at.call(permission_mode="ask")
        assert at.processes() == []
    assert (answer["isError"], answer["structuredContent"]["fault"]) == (True, "protocol")
    assert why in answer["content"][0]["text"]


async def test_looking_and_allowed_tools_need_no_question(tmp_path: Path) -> None:
    """No agent asks for all that only looks."""
    for kind, said in (("read", {}), ("execute", {"allowed_tools": ["write"]})):
        steps = [WRITE | {"asks": False, "kind": kind}, do("say", text="done")]
        folder = tmp_path / kind
        folder.mkdir()
        async with scripted(folder, steps) as at:
            at.approver = Person()
            answer = await at.call(permission_mode="ask", **said)
        assert (answer["isError"], answer["content"][0]["text"]) == (False, "done")


async def test_time_stands_still_and_a_cancel_withdraws_the_question(tmp_path: Path) -> None:
    """Neither silence nor wall time ends a run that waits; a cancel does, the agent hears so, and nothing is left."""
    person = Person(None)
    async with scripted(tmp_path, ALL, wall_s=3.0, silence_s=2.0) as at:
        at.approver = person
        running = asyncio.create_task(at.call(permission_mode="ask"))
        await _until_asked(person)
        done, _ = await asyncio.wait({running}, timeout=5.0)
        assert not done
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert at.processes() == []
    assert person.was_left


async def test_a_run_that_is_to_end_answers_cancelled(tmp_path: Path) -> None:
    """As the protocol wants it of a client that cancels its prompt: whoever asked does not wait on."""
    person = Person(None)
    async with scripted(tmp_path, ALL) as at:
        at.approver = person
        running = asyncio.create_task(at.call(permission_mode="ask"))
        await _until_asked(person)
        await at.server._sidecar.cancel("agent-inv-1")
        answer = await running
        assert at.processes() == []
    assert answer["structuredContent"]["ending"] == "cancelled"
    assert person.was_left
    assert _kept(at) == {"outcome": "cancelled"}


def _kept(at: AcpBench) -> object:
    """What the agent wrote down in its HOME, which is kept with its session."""
    folder = at.folder / "state/sidecars/agent/sessions/none/scripted-1/.scripted"
    return json.loads((folder / "outcome.json").read_text())
