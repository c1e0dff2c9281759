"""The console's pages of work that needs a person: dead letters, agents' runs, questions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchestrator.testing.protocol import SAFE, UNSAFE, held
from tasks.approval import Question, canonical, digest
from tasks.envelope import Delivery
from tasks.invocation import Lane
from tasks.ledger_events import Asked
from tasks.node import Phase
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from tests.contract.console_rig import ROLES, Field, opened

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
DENIED = Outcome("failed", error=ErrorInfo("tool_error", f"no such file {HOSTILE}", Failure.TOOL_ERROR))
LATE = Outcome("failed", error=ErrorInfo("connection_lost", "it ended", Failure.MAYBE_STARTED))
ANSWER = {"content": [], "structuredContent": {"session_id": "ses_4711"}, "isError": False}


@pytest.fixture
async def it(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Field]:
    """A console, and a node."""
    async with opened(tmp_path, clock) as field:
        await field.story.join("a1")
        yield field


async def dead(it: Field, outcome: Outcome = DENIED, tool: str = UNSAFE, **call: Any) -> str:
    """A call that ended badly; its id."""
    made = await it.call(tool, **call)
    (delivery,) = await it.story.release()
    await it.story.finish("a1", delivery, outcome)
    return made


async def run(it: Field, **call: Any) -> Delivery:
    """An agent's run that goes on."""
    await it.call(UNSAFE, lane=Lane.AGENTS, **call)
    (delivery,) = await it.story.release()
    node = it.story.core.roster.get("a1")
    assert node is not None
    return delivery


async def asks(it: Field, delivery: Delivery, arguments: dict[str, Any], approval: str = "q-0001") -> Question:
    """It asks for the use of a tool."""
    text, now = canonical(arguments), it.story.clock.wall_s()
    question = Question(approval, "Bash", text, digest(text), now, now + 600)
    await it.story.core.approvals.asked([("a1", Asked(delivery.invocation, delivery.fence, question))])
    return question


# ---------------------------------------------------------------- dead letters


async def test_without_dead_letters_the_page_says_what_would_be_there(it: Field) -> None:
    """An empty page is not a broken one."""
    page = (await (await it.person("operator")).get("/dead-letters")).text
    assert "No dead letters. A call that fails for good" in page
    assert "Replay" not in page


async def test_dead_letters_are_shown_by_reason_with_what_happened(it: Field) -> None:
    """Two reasons, each with its count; a filter shows one of them; what the tool said is text."""
    await dead(it, DENIED, project="shop")
    await dead(it, LATE)
    browser = await it.person("operator")
    page = (await browser.get("/dead-letters")).text
    assert "tool_error (1)" in page
    assert "unsafe_to_repeat (1)" in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    only = (await browser.get("/dead-letters?reason=tool_error&project=shop")).text
    assert "no such file" in only
    assert "it ended" not in only
    assert "No dead letter is like that" in (await browser.get("/dead-letters?tool=other.tool")).text


async def test_one_letter_says_what_why_and_what_to_do(it: Field) -> None:
    """A person who never saw this fleet knows what to do next."""
    letter = await dead(it, LATE)
    page = (await (await it.person("operator")).get(f"/dead-letters/{letter}")).text
    for said in ("it ended", "connection_lost", "may have run, and its tool is not declared safe", "Then replay"):
        assert said in page, said


async def test_a_letter_is_replayed_and_leads_to_its_new_call(it: Field) -> None:
    """And a second press makes no second call."""
    letter = await dead(it)
    browser = await it.person("developer")
    after = (await browser.submit(f"/dead-letters/{letter}/replay")).text
    (again,) = [one for one in await calls(it) if one["replay_of"] == letter]
    assert f'href="/console/calls/{again["id"]}"' in after
    assert again["id"][-8:] in after
    await browser.submit(f"/dead-letters/{letter}/replay")
    assert len([one for one in await calls(it) if one["replay_of"] == letter]) == 1


async def calls(it: Field) -> list[dict[str, Any]]:
    """All of the fleet's own tenant."""
    return list((await it.api("GET", "/v1/invocations")).json()["items"])


async def test_all_of_a_filter_are_replayed_after_a_page_that_says_how_many(it: Field, clock: FakeClock) -> None:
    """Those of another filter, those replayed before and those that came later are left alone."""
    first, second = await dead(it, project="shop"), await dead(it, project="shop")
    other = await dead(it, project="bank")
    browser = await it.person("operator")
    await browser.submit(f"/dead-letters/{first}/replay")
    await it.story.release()
    link = f"/dead-letters/replay?project=shop&until={clock.wall_s()}"
    asked = await browser.get(link)
    assert "Replay 1 dead letter?" in asked.text
    clock.advance(1.0)
    later = await dead(it, project="shop")
    done = await browser.post(link)
    assert done.status_code == 303
    after = await browser.get(done.headers["location"].removeprefix("/console"))
    assert "1 dead letter called again" in after.text
    letters = {one["id"]: one["replayed_as"] for one in (await it.api("GET", "/v1/dead-letters")).json()["items"]}
    assert bool(letters[second])
    assert (letters[other], letters[later]) == (None, None)


async def test_discarding_takes_letters_and_leaves_the_calls(it: Field) -> None:
    """One, then all that are left."""
    first, second = await dead(it), await dead(it)
    browser = await it.person("operator")
    assert "is discarded" in (await browser.submit(f"/dead-letters/{first}/discard")).text
    assert "Discard 1 dead letter?" in (await browser.get("/dead-letters/discard")).text
    assert "No dead letters" in (await browser.submit("/dead-letters/discard")).text
    assert {one["id"] for one in await calls(it)} == {first, second}


async def test_a_hundred_letters_are_paged(it: Field) -> None:
    """The first page has a way to the next, the last one back to the newest; every letter is on one of them."""
    letters = {await dead(it) for _ in range(60)}
    browser = await it.person("operator")
    first = (await browser.get("/dead-letters")).text
    (older,) = [part.split('"')[0] for part in first.split('href="/console')[1:] if "cursor=" in part.split('"')[0]]
    second = (await browser.get(older.replace("&amp;", "&"))).text
    shown = {one for one in letters if f"letter-{one}" in first}, {one for one in letters if f"letter-{one}" in second}
    assert (len(shown[0]), len(shown[1]), shown[0] | shown[1]) == (50, 10, letters)
    assert ">Newest<" in second


# ---------------------------------------------------------------- agents


async def test_a_run_is_shown_with_what_may_be_done(it: Field) -> None:
    """While it goes on; its page has its cost, and its session once it has ended."""
    delivery = await run(it, project="shop")
    browser = await it.person("operator")
    page = (await browser.get("/agents")).text
    assert f'href="/console/agents/{delivery.invocation}"' in page
    assert f'href="/console/agents/{delivery.invocation}/cancel"' in page
    one = (await browser.get(f"/agents/{delivery.invocation}")).text
    assert "Cost so far" in one
    assert f'data-follow="/console/agents/{delivery.invocation}/events"' in one
    await it.story.finish("a1", delivery, Outcome("succeeded", orjson.dumps(ANSWER).decode()))
    assert "ses_4711" in (await browser.get(f"/agents/{delivery.invocation}")).text


async def test_a_run_is_cancelled(it: Field) -> None:
    """It is asked to stop; a second button is not offered."""
    delivery = await run(it)
    browser = await it.person("developer")
    assert "is asked to stop" in (await browser.submit(f"/agents/{delivery.invocation}/cancel")).text
    assert "/cancel" not in (await browser.get("/agents")).text


async def test_a_spent_credential_is_told(it: Field) -> None:
    """With until when, as its node says it."""
    story = it.story
    node = await story.join("b1")
    words = {"claude_code": "credential anthropic is refused; put a valid one in its place"}
    await story.renew(node, unhealthy=words)
    assert words["claude_code"] in (await (await it.person("operator")).get("/agents")).text


async def test_what_a_run_says_comes_through_the_console(it: Field) -> None:
    """The events as the API streams them, to the end; another tenant's run is not there."""
    delivery = await run(it)
    browser, stranger = await it.person("operator"), await it.person("operator", "acme")
    await it.story.finish("a1", delivery, Outcome("succeeded", orjson.dumps(ANSWER).decode()))
    told = await browser.get(f"/agents/{delivery.invocation}/events")
    assert told.headers["content-type"].startswith("text/event-stream")
    assert [line for line in told.text.split("\n") if line.startswith("event: ")] == [
        "event: accepted", "event: released", "event: running", "event: ended"
    ]  # fmt: skip
    rest = await browser.get(f"/agents/{delivery.invocation}/events", **{"Last-Event-ID": "1.1"})
    assert "event: accepted" not in rest.text
    assert "event: ended" in rest.text
    assert (await stranger.get(f"/agents/{delivery.invocation}/events")).status_code == 404
    assert (await stranger.get(f"/agents/{delivery.invocation}")).status_code == 404


# ---------------------------------------------------------------- approvals


async def test_a_question_is_shown_whole_and_allowed(it: Field) -> None:
    """With exact arguments, nothing in them taken for markup or hidden; the answer names what was shown."""
    question = await asks(it, await run(it), {"command": f"rm -r build {HOSTILE}", "why": "clean\u202e up"})
    browser = await it.person("developer")
    assert "1 run waits for a person" in (await browser.get("/approvals")).text
    page = (await browser.get(f"/approvals/{question.id}")).text
    assert "<img src=x" not in page
    assert "rm -r build &lt;img" in page
    assert "clean\\u202e up" in page
    assert question.arguments_sha256 in page
    done = await browser.post(
        f"/approvals/{question.id}/answer", {"answer": "allow", "sha256": question.arguments_sha256, "reason": "fine"}
    )
    assert done.status_code == 303
    assert "Bash is allowed" in (await browser.get("/approvals")).text
    view = (await it.api("GET", f"/v1/approvals/{question.id}")).json()
    assert (view["state"], view["answered_by"], view["reason"]) == ("allowed", "default-developer", "fine")


async def test_an_answer_to_other_arguments_is_refused(it: Field) -> None:
    """What was shown and what is asked are the same, or nobody allowed anything."""
    question = await asks(it, await run(it), {"command": "ls"})
    browser = await it.person("operator")
    await browser.get(f"/approvals/{question.id}")
    other = digest(canonical({"command": "rm"}))
    refused = await browser.post(f"/approvals/{question.id}/answer", {"answer": "allow", "sha256": other})
    assert refused.status_code == 409
    nothing = await browser.post(f"/approvals/{question.id}/answer", {"sha256": question.arguments_sha256})
    assert nothing.status_code == 422
    assert (await it.api("GET", f"/v1/approvals/{question.id}")).json()["state"] == "waiting"


async def test_a_denied_question_is_among_those_that_are_over(it: Field) -> None:
    """With who said it and why, for whoever looks later."""
    question = await asks(it, await run(it), {"command": "curl https://example.com"})
    browser = await it.person("operator")
    await browser.get(f"/approvals/{question.id}")
    form = {"answer": "deny", "sha256": question.arguments_sha256, "reason": "no network here"}
    await browser.post(f"/approvals/{question.id}/answer", form)
    page = (await browser.get("/approvals")).text
    for said in ("Nobody waits for an answer", "denied", "default-operator", "no network here"):
        assert said in page, said
    one = (await browser.get(f"/approvals/{question.id}")).text
    assert 'name="answer"' not in one
    assert "not yet: its node was not reached" in one


# ---------------------------------------------------------------- roles


PATHS = ("/dead-letters", "/agents", "/approvals", "/autoscaler", "/circuits", "/cost", "/audit")
SEES = {
    "admin": set(PATHS),
    "operator": set(PATHS) - {"/audit"},
    "developer": set(PATHS) - {"/audit"},
    "agent": {"/dead-letters", "/agents"},
    "auditor": set(PATHS),
}


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_is_offered_what_it_may_see_and_do(it: Field, role: str) -> None:
    """No link to a page that would be refused, no button that would be; asked for all the same, a clear refusal."""
    letter, delivery = await dead(it), await run(it)
    question = await asks(it, delivery, {"command": "ls"})
    await it.story.renew(await it.story.join("b1"), held(delivery, Phase.RUNNING))
    browser = await it.person(role)
    nav = (await browser.get("/dead-letters")).text
    for path in PATHS:
        assert (f'href="/console{path}"' in nav) is (path in SEES[role]), path
        answer = await browser.get(path)
        assert answer.status_code == (200 if path in SEES[role] else 403), (path, answer.text)
    may_call, may_answer = role != "auditor", role in {"admin", "operator", "developer"}
    for path, mark, may in (
        ("/dead-letters", f"/dead-letters/{letter}/replay", may_call),
        (f"/dead-letters/{letter}", f"/dead-letters/{letter}/discard", may_call),
        ("/agents", f"/agents/{delivery.invocation}/cancel", may_call),
        (f"/approvals/{question.id}", 'name="answer"', may_answer),
        ("/autoscaler", "/hold", role in {"admin", "operator"}),
    ):
        page = await browser.get(path)
        if page.status_code == 200:
            assert (mark in page.text) is may, (path, mark)
        if "/" in mark and not mark.startswith("/hold"):
            assert (await browser.get(mark)).status_code == (200 if may else 403), mark
    form = {"answer": "deny", "sha256": question.arguments_sha256}
    answered = await browser.post(f"/approvals/{question.id}/answer", form)
    assert answered.status_code == (303 if may_answer else 403)


async def test_another_tenant_sees_nothing_of_ours(it: Field) -> None:
    """Its own pages are empty, ours are not there."""
    letter, delivery = await dead(it, project="canary-shop"), await run(it, project="canary-shop")
    question = await asks(it, delivery, {"command": "canary"})
    browser = await it.person("admin", "acme")
    for path in ("/dead-letters", "/agents", "/approvals", "/cost", "/audit"):
        page = await browser.get(path)
        assert page.status_code == 200, page.text
        assert "canary" not in page.text
        assert letter not in page.text
    for path in (f"/dead-letters/{letter}", f"/dead-letters/{letter}/replay", f"/approvals/{question.id}"):
        assert (await browser.get(path)).status_code == 404, path
    assert (await browser.get("/audit/verify")).status_code == 403


async def test_a_safe_call_that_failed_too_often_says_so(it: Field) -> None:
    """Its retries are told in words."""
    letter = await dead(it, LATE, SAFE, retry={"attempts": 1})
    page = (await (await it.person("operator")).get(f"/dead-letters/{letter}")).text
    assert "tried as often as its retry policy allows" in page
