"""What an ACP agent is answered, and what a person is told of a question."""

from __future__ import annotations

from typing import Any

from tasks.approval import Permission
from worker.sidecars.acp_asks import Questions, arguments_of
from worker.sidecars.acp_permissions import Policy, Tool

FOR_EVER = [{"optionId": "ever", "kind": "allow_always"}, {"optionId": "never", "kind": "reject_always"}]
ONCE = [*FOR_EVER, {"optionId": "yes", "kind": "allow_once"}, {"optionId": "no", "kind": "reject_once"}]


async def _nobody(_tool: str, _arguments: object) -> Permission:
    raise AssertionError("nobody is to be asked")


async def test_a_lasting_yes_is_never_given_where_a_person_may_be_asked() -> None:
    """Not for a tool that the caller allowed either: what the agent then no longer asks for is its own to say."""
    asking = Questions(Policy.of(("write",), (), "ask"), _nobody)
    assert await asking.allowed(Tool("edit", "write"), {}, FOR_EVER) is True
    assert asking.outcome(FOR_EVER, is_allowed=True) == {"outcome": "cancelled"}
    assert asking.outcome(ONCE, is_allowed=True) == {"outcome": "selected", "optionId": "yes"}
    assert asking.outcome(ONCE, is_allowed=False) == {"outcome": "selected", "optionId": "no"}
    assert Questions(Policy.of((), (), None), None).outcome(FOR_EVER, is_allowed=True)["optionId"] == "ever"


def test_a_person_is_told_all_that_the_agent_said_of_it() -> None:
    """Its question, the tool's own input where that is another, and what it shows where neither has words."""
    question: dict[str, Any] = {"toolCallId": "1", "status": "pending", "kind": "edit", "title": "a.txt"}
    shows = {"content": [{"type": "diff"}], "locations": [{"path": "a.txt"}]}
    asked, given = {"diff": "+1"}, {"path": "a.txt"}
    told = {"kind": "edit", "title": "a.txt"}
    assert arguments_of(question | shows, None) == told | shows
    assert arguments_of(question | shows | {"rawInput": asked}, None) == told | {"rawInput": asked}
    assert arguments_of(question | {"rawInput": asked}, given) == told | {"rawInput": asked, "input": given}
    assert arguments_of(question | {"rawInput": given}, dict(given)) == told | {"rawInput": given}
    assert arguments_of(question | shows, given) == told | {"input": given}
