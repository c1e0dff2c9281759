"""Questions of runs to people, from a node's event to its answer and back: by the API, on a real ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.happenings import ApprovalAnswered, ApprovalAsked, Happening
from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import UNSAFE, PlayedNode, Story, held
from tasks.approval import Question, Taken, Verdict, canonical, digest
from tasks.envelope import Delivery
from tasks.invocation import Lane
from tasks.ledger_events import Asked, Resolved
from tasks.node import ApprovalAnswer, Control, Phase
from tasks.outcome import Outcome

OPERATOR, JOIN = "operator-token", "join-token"
ARGUMENTS = {"command": "rm -r build", "description": "clean\u202e up"}
TEXT = canonical(ARGUMENTS)
DONE = Outcome("succeeded", result_json='{"content":[]}')


@dataclass
class Stream:
    """Control streams that keep what is said."""

    said: list[tuple[str, Control]] = field(default_factory=list)

    async def say(self, node: str, control: Control) -> None:
        """Keep it."""
        self.said.append((node, control))

    def noted(self) -> list[str]:
        """Ids of questions that nodes were told of."""
        return [one for _, control in self.said for one in control.noted]

    def answers(self) -> list[ApprovalAnswer]:
        """What nodes were told."""
        return [one for _, control in self.said for one in control.answers]


@dataclass
class Scene:
    """A leader, a node with a run that asks, and the API."""

    story: Story
    node: PlayedNode
    run: Delivery
    http: httpx.AsyncClient
    stream: Stream
    told: list[Happening]

    async def asks(self, approval: str = "q-0001", **other: Any) -> Question:
        """The node's event; once more where it is called again."""
        now = self.story.clock.wall_s()
        given = {"asked_at": now, "expires_at": now + 60} | other
        fence = given.pop("fence", self.run.fence)
        question = Question(approval, "Bash", TEXT, digest(TEXT), **given)
        await self.story.core.approvals.asked([(self.node.name, Asked(self.run.invocation, fence, question))])
        return question

    async def say(self, answer: str, approval: str = "q-0001", **other: Any) -> httpx.Response:
        """A person answers."""
        body = {"answer": answer, "arguments_sha256": digest(TEXT)} | other
        return await self.http.post(f"/v1/approvals/{approval}", json=body)

    async def renewal(self) -> tuple[ApprovalAnswer, ...]:
        """What the node's next renewal is told."""
        return (await self.story.renew(self.node, held(self.run, Phase.RUNNING))).answers


@asynccontextmanager
async def api_of(story: Story) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP API of this leader."""
    core = story.core
    app = app_of(core, OPERATOR, JOIN)
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=headers
    ) as http:
        yield http


@pytest.fixture
async def scene(story: Story) -> AsyncIterator[Scene]:
    """A call that runs on node `a1`."""
    stream, told = Stream(), list[Happening]()
    story.core.approvals.voice = stream
    story.core.happenings.listen(told.append)
    node = await story.join("a1", slots=1)
    await story.accept(UNSAFE)
    (run,) = await story.release()
    await story.renew(node, held(run, Phase.RUNNING))
    async with api_of(story) as http:
        yield Scene(story, node, run, http, stream, told)


async def test_a_question_is_shown_and_its_call_says_that_it_waits(scene: Scene) -> None:
    """With its exact arguments and their digest, at every place where one looks."""
    await scene.asks()
    await scene.asks()
    assert scene.stream.noted() == ["q-0001", "q-0001"]
    (listed,) = (await scene.http.get("/v1/approvals", params={"state": "waiting"})).json()["items"]
    shown = (await scene.http.get("/v1/approvals/q-0001")).json()
    assert listed == shown
    assert (shown["state"], shown["tool"], shown["fleet_tool"], shown["node"]) == ("waiting", "Bash", UNSAFE, "a1")
    assert (shown["arguments"], shown["arguments_sha256"]) == (ARGUMENTS, digest(TEXT))
    path = f"/v1/invocations/{scene.run.invocation}"
    assert (await scene.http.get(path)).json()["approvals"] == ["q-0001"]
    assert (await scene.http.get("/v1/invocations")).json()["items"][0]["approvals"] == ["q-0001"]
    assert "waits for a person" in (await scene.http.get(f"{path}/why")).json()["summary"]
    assert [type(each) for each in scene.told].count(ApprovalAsked) == 1


@pytest.mark.parametrize("answer", ["allow", "deny"])
async def test_an_answer_goes_to_the_node_until_it_said_what_it_made_of_it(scene: Scene, answer: str) -> None:
    """At once, and with every renewal; then no more."""
    question = await scene.asks()
    said = await scene.say(answer, reason="as we agreed")
    assert (said.status_code, said.json()["answer"], said.json()["answered_by"]) == (200, answer, "operator")
    (told,) = scene.stream.answers()
    assert (told.approval, told.verdict, told.reason) == ("q-0001", Verdict(answer), "as we agreed")
    assert told.arguments_sha256 == question.arguments_sha256
    assert await scene.renewal() == (told,)
    assert await scene.renewal() == (told,)
    taken = Resolved(scene.run.invocation, scene.run.fence, "q-0001", Taken(answer), scene.story.clock.wall_s())
    await scene.story.core.approvals.resolved([("a1", taken)])
    assert await scene.renewal() == ()
    assert (await scene.http.get("/v1/approvals/q-0001")).json()["taken_at"] == taken.at
    (heard,) = [each for each in scene.told if isinstance(each, ApprovalAnswered)]
    assert (heard.answer, heard.reason) == (Taken(answer), "as we agreed")


async def test_an_answer_binds_to_what_was_asked(scene: Scene) -> None:
    """Another digest, another answer, no such question: each is refused with its word."""
    await scene.asks()
    wrong = await scene.say("allow", arguments_sha256=digest("{}"))
    assert (wrong.status_code, wrong.json()["code"]) == (409, "other_arguments")
    assert scene.stream.answers() == []
    assert [(await scene.say("deny")).status_code for _ in range(2)] == [200, 200]
    other = await scene.say("allow")
    assert (other.status_code, other.json()["code"]) == (409, "already_answered")
    assert (await scene.say("allow", "q-0002")).status_code == 404
    assert (await scene.say("perhaps")).status_code == 422


async def test_a_question_nobody_answered_expires(scene: Scene) -> None:
    """Too late is told so; the node says that it was denied."""
    await scene.asks()
    scene.story.clock.advance(60)
    late = await scene.say("allow")
    assert (late.status_code, late.json()["code"]) == (410, "approval_over")
    assert (await scene.http.get("/v1/approvals", params={"state": "waiting"})).json()["items"] == []
    over = Resolved(scene.run.invocation, scene.run.fence, "q-0001", Taken.EXPIRED, scene.story.clock.wall_s())
    await scene.story.core.approvals.resolved([("a1", over)])
    assert (await scene.http.get("/v1/approvals/q-0001")).json()["state"] == "expired"
    assert [each.answer for each in scene.told if isinstance(each, ApprovalAnswered)] == [Taken.EXPIRED]


async def test_a_superseded_attempt_is_told_no(scene: Scene) -> None:
    """Nobody is asked on its behalf; and what it asked before cannot be answered any more."""
    await scene.asks()
    await scene.asks("q-old", fence=scene.run.fence - 1)
    (refused,) = scene.stream.answers()
    assert (refused.approval, refused.verdict) == ("q-old", Verdict.DENY)
    assert "given up" in refused.reason
    await scene.story.finish("a1", scene.run, DONE)
    gone = await scene.say("allow")
    assert (gone.status_code, gone.json()["code"]) == (410, "approval_over")
    assert (await scene.http.get("/v1/approvals/q-0001")).json()["state"] == "over"
    assert await scene.renewal() == ()


async def test_another_leader_goes_on(scene: Scene, tmp_path: Path) -> None:
    """What was asked is still open, what was answered is still told; the node's word ends it."""
    await scene.asks()
    await scene.asks("q-0002")
    await scene.say("deny")
    again = await Story.begin(tmp_path, scene.story.clock)
    stream = again.core.approvals.voice = Stream()
    (told,) = (await again.renew(scene.node, held(scene.run, Phase.RUNNING))).answers
    assert (told.approval, told.verdict) == ("q-0001", Verdict.DENY)
    async with api_of(again) as http:
        assert (await http.get(f"/v1/invocations/{scene.run.invocation}")).json()["approvals"] == ["q-0002"]
        body = {"answer": "allow", "arguments_sha256": digest(TEXT)}
        assert (await http.post("/v1/approvals/q-0002", json=body)).status_code == 200
    assert [answer.approval for answer in stream.answers()] == ["q-0002"]
    await again.end()


async def test_a_slot_that_is_freed_is_others_until_the_answer(scene: Scene) -> None:
    """What waits here for room gets one place more while the call waits for a person, and none after that."""
    for _ in range(20):
        await scene.story.accept(UNSAFE)
    placed = 1
    while some := await scene.story.release():
        placed += len(some)
    await scene.asks(frees_slot=True)
    (in_its_place,) = await scene.story.release()
    assert await scene.story.release() == []
    assert scene.story.core.attempts.held("a1", Lane.TOOLS) == placed
    await scene.say("allow")
    taken = Resolved(scene.run.invocation, scene.run.fence, "q-0001", Taken.ALLOW, scene.story.clock.wall_s())
    await scene.story.core.approvals.resolved([("a1", taken)])
    assert scene.story.core.attempts.held("a1", Lane.TOOLS) == placed + 1
    await scene.story.finish("a1", in_its_place, DONE)
    assert await scene.story.release() == []
