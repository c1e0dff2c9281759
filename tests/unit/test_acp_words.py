"""What an ACP agent says, in the fleet's words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from worker.sidecars import acp_words
from worker.sidecars.acp_permissions import Policy
from worker.sidecars.acp_words import Hearing, ended, refused
from worker.sidecars.sidecar import Ending, Event, Fault, Said, Thought, ToolBegan, ToolEnded


def hearing(*denied: str) -> Hearing:
    """That listens."""
    made = Hearing(Policy.of((), denied, None))
    made.is_listening = True
    return made


def heard(of: Hearing, *updates: dict[str, Any]) -> list[Event]:
    """Without the signs of life."""
    events = [event for update in updates for event in of.events(update)]
    return [event for event in events if not isinstance(event, Thought) or event.text]


def chunk(text: str, message: str | None = None) -> dict[str, Any]:
    """Of the agent's message."""
    return {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}, "messageId": message}


def tool(status: str, **more: Any) -> dict[str, Any]:
    """A tool's update."""
    return {"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": status, **more}


def test_a_tool_is_told_once_when_it_is_known_what_it_does() -> None:
    """As opencode tells it: the name first, what it does later, then its output again and again."""
    of = hearing()
    assert heard(of, chunk("I look"), {**tool("pending", title="bash", kind="execute"), "sessionUpdate": "tool_call"})[
        1:
    ] == [Said("I look")]
    doing = tool("in_progress", title="ls /", rawInput={"command": "ls /"})
    assert heard(of, doing, doing) == [ToolBegan("1", "bash", "ls /")]
    assert of.has_open_tools
    assert heard(of, tool("failed"), tool("failed")) == [ToolEnded("1", is_error=True)]
    assert not of.has_open_tools


def test_a_tool_that_is_only_told_when_it_is_over_is_told() -> None:
    """Whoever counts on tools having been used must hear of it."""
    assert heard(hearing(), tool("completed", kind="edit")) == [
        ToolBegan("1", "edit", ""),
        ToolEnded("1", is_error=False),
    ]


def test_the_last_message_is_the_answer() -> None:
    """Messages are told apart by their ids, where the agent gives any."""
    of = hearing()
    events = heard(of, chunk("one", "a"), chunk("two ", "b"), chunk("three", "b"))
    assert [event for event in events if event == Said("one")] == [Said("one")]
    assert list(of.whole()) == [Said("two three")]
    assert of.last == "two three"
    assert list(of.whole()) == []


def test_the_past_of_a_loaded_session_is_no_event() -> None:
    """But what it had cost until then is not this run's."""
    of = Hearing(Policy.of((), (), None))
    cost = {"sessionUpdate": "usage_update", "cost": {"amount": 0.5, "currency": "USD"}}
    assert heard(of, chunk("before"), tool("completed"), cost) == []
    of.is_listening = True
    heard(of, {"sessionUpdate": "usage_update", "cost": {"amount": 0.75, "currency": "USD"}})
    assert of.cost_usd(is_new=False) == pytest.approx(0.25)
    assert of.last == ""


def test_a_cost_that_nobody_can_tell_apart_is_none() -> None:
    """Of a session that went on without saying what it had cost; in another currency; no number."""
    of = hearing()
    for amount, currency in ((0.75, "EUR"), ("0.75", "USD"), (None, None)):
        heard(of, {"sessionUpdate": "usage_update", "cost": {"amount": amount, "currency": currency}})
    assert of.cost_usd(is_new=True) is None
    heard(of, {"sessionUpdate": "usage_update", "cost": {"amount": 0.75, "currency": "USD"}})
    assert (of.cost_usd(is_new=True), of.cost_usd(is_new=False)) == (0.75, None)


def test_a_denied_tool_that_was_used_is_noticed() -> None:
    """Not one that was asked for and failed."""
    of = hearing("execute")
    heard(of, tool("failed", kind="execute"))
    assert of.overstepped is None
    heard(of, tool("completed", kind="execute", toolCallId="2"))
    assert of.overstepped == "execute, which the call denied"


def test_in_the_mode_ask_no_use_goes_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not kept account of could be used without a question."""
    monkeypatch.setattr(acp_words, "USES_MAX", 2)
    of = Hearing(Policy.of((), (), "ask"))
    of.is_listening = True
    heard(of, *(tool("completed", kind="read", toolCallId=str(number)) for number in range(2)))
    assert of.overstepped is None
    heard(of, tool("completed", kind="read", toolCallId="2"))
    assert "more than 2 tools" in str(of.overstepped)


def test_questions_are_counted_like_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that asks for ever for something new fills no memory; in the mode `ask` its run ends."""
    monkeypatch.setattr(acp_words, "USES_MAX", 2)
    for mode in (None, "ask"):
        of = Hearing(Policy.of((), (), mode))
        of.is_listening = True
        told = [of.asked({"toolCallId": str(number), "kind": "execute"})[1] for number in range(3)]
        of.answered("2", is_allowed=False)
        assert [len(events) for events in told] == [1, 1, 0]
        assert ("more than 2 tools" in str(of.overstepped)) == (mode == "ask")
        assert heard(of, tool("completed", toolCallId="2")) == []


def test_an_id_is_kept_in_a_bounded_length() -> None:
    """Two long ones are told apart all the same, and what was denied is noticed."""
    of = hearing("execute")
    begun = heard(of, *(tool("in_progress", kind="execute", toolCallId="x" * 1000 + end) for end in "ab"))
    names = {event.id for event in begun if isinstance(event, ToolBegan)}
    assert len(names) == 2
    assert max(map(len, names)) <= acp_words.NAME_MAX_CHARS
    heard(of, tool("completed", toolCallId="x" * 1000 + "b"))
    assert of.overstepped == "execute, which the call denied"


def asking() -> Hearing:
    """In the mode `ask`, of a tool that is nobody's but a person's to allow."""
    of = Hearing(Policy.of((), (), "ask"))
    of.is_listening = True
    heard(of, tool("pending", kind="execute"))
    return of


LS, RM, OTHER = ({"rawInput": {"command": command}} for command in ("ls", "rm -rf .", "make"))
ANOTHER = "execute with another input than it had asked for"


@pytest.mark.parametrize(
    ("before", "question", "while_open", "after", "wrong"),
    [
        (LS, {}, {}, LS, None),
        (LS, {}, RM, {}, ANOTHER),
        (LS, {}, RM, LS, ANOTHER),
        (LS, {}, {}, RM, ANOTHER),
        ({}, LS, {}, LS, None),
        ({}, LS, {}, RM, ANOTHER),
        (LS, OTHER, {}, LS, None),
        (LS, OTHER, {}, OTHER, None),
        (LS, OTHER, {}, RM, ANOTHER),
        ({}, {}, {}, {}, None),
        ({}, {}, {}, RM, ANOTHER),
        ({"rawInput": "ls"}, {}, {}, {"rawInput": "rm"}, ANOTHER),
        ({"rawInput": {"a": 1, "b": 2}}, {}, {}, {"rawInput": {"b": 2, "a": 1}}, None),
    ],
)
def test_a_yes_is_for_what_was_shown(
    before: dict[str, Any],
    question: dict[str, Any],
    while_open: dict[str, Any],
    after: dict[str, Any],
    wrong: str | None,
) -> None:
    """Not for what came while the person looked or later; an input where none was shown is another."""
    of = asking()
    heard(of, tool("pending", **before))
    of.asked({"toolCallId": "1", **question})
    heard(of, tool("in_progress", **while_open))
    of.answered("1", is_allowed=True)
    heard(of, tool("in_progress", **after), tool("completed"))
    assert of.overstepped == wrong


def test_an_input_that_was_no_longer_kept_was_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that is too large; a second question that shows it makes up for that."""
    monkeypatch.setattr(acp_words, "INPUTS_MAX", 1)
    for is_shown_later in (False, True):
        of = asking()
        heard(of, tool("pending", **LS), tool("pending", toolCallId="2", kind="read", **OTHER))
        assert of.input_of("1") is None
        of.asked({"toolCallId": "1"})
        of.answered("1", is_allowed=True)
        if is_shown_later:
            of.asked({"toolCallId": "1", **LS})
            of.answered("1", is_allowed=True)
        heard(of, tool("completed"))
        assert of.overstepped == (None if is_shown_later else ANOTHER)


@pytest.mark.parametrize("strange", ["\ud800", 2**64, orjson.loads("[" * 300 + "]" * 300)])
def test_an_input_that_cannot_be_written_hides_nothing(strange: object) -> None:
    """Half a character, a number too large, too deep: that a tool was used is told, and its input was not shown."""
    of = hearing("execute")
    told = heard(of, tool("completed", kind="execute", rawInput={"strange": strange}))
    assert ToolEnded("1", is_error=False) in told
    assert of.overstepped == "execute, which the call denied"
    for question in ({}, {"rawInput": {"strange": strange}}):
        of = asking()
        heard(of, tool("pending", rawInput={"strange": strange}))
        of.asked({"toolCallId": "1", **question})
        of.answered("1", is_allowed=True)
        heard(of, tool("completed"))
        assert of.overstepped == ANOTHER


@pytest.mark.parametrize(
    ("said", "status", "ending", "fault"),
    [
        ("mcpfleet: the run's money is spent: 2 of 1", 403, Ending.LIMIT, Fault.MONEY),
        ("mcpfleet: the run's turns are used: 3", 403, Ending.LIMIT, Fault.TURNS),
        ("prompt is too long", 400, Ending.FAILED, Fault.CONTEXT),
        ("no", 401, Ending.FAILED, Fault.AUTH),
        ("no", 429, Ending.FAILED, Fault.QUOTA),
        ("no", 529, Ending.FAILED, Fault.OVERLOADED),
        ("no", 500, Ending.FAILED, Fault.PROVIDER_FAILED),
        ("no", 502, Ending.FAILED, Fault.UNREACHABLE),
        ("no", 404, Ending.FAILED, Fault.REFUSED),
        ("no", None, Ending.FAILED, Fault.PROTOCOL),
    ],
)
def test_an_agent_that_gives_up_is_classified_by_what_its_model_answered(
    said: str, status: int | None, ending: Ending, fault: Fault
) -> None:
    """Its own words are its maker's; the status is the provider's."""
    assert refused(said, status)[:2] == (ending, fault)


def test_an_unknown_end_is_no_success() -> None:
    """Nor is one without a reason."""
    assert ended("end_turn", "done") == (Ending.SUCCEEDED, None, "done")
    assert ended(None, "done")[:2] == (Ending.FAILED, Fault.PROTOCOL)
    assert ended(["end_turn"], "done")[:2] == (Ending.FAILED, Fault.PROTOCOL)
