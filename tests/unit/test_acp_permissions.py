"""What an ACP agent may do of what it asks for."""

from __future__ import annotations

import pytest

from worker.sidecars.acp_permissions import Policy, Tool, option_of, tool_of

EDIT, RUN, LOOK = Tool("edit", "write"), Tool("execute", "bash"), Tool("read", "read")


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        (None, []),
        ("default", [LOOK]),
        ("plan", [LOOK]),
        ("acceptEdits", [LOOK, EDIT]),
        ("dontAsk", []),
        ("of tomorrow", []),
    ],
)
def test_a_mode_allows_its_kinds_and_no_other(mode: str | None, allowed: list[Tool]) -> None:
    """What nobody allowed is denied, also in a mode that nobody knows."""
    policy = Policy.of((), (), mode)
    assert [tool for tool in (LOOK, EDIT, RUN) if policy.allows(tool)] == allowed


def test_a_word_is_a_kind_or_else_a_name() -> None:
    """In any case; and a command that is called as a kind is no tool of that kind."""
    by_name, by_kind = Policy.of(("Bash",), (), None), Policy.of(("read",), (), None)
    assert by_name.allows(RUN)
    assert not by_name.allows(EDIT)
    assert by_kind.allows(LOOK)
    assert not by_kind.allows(Tool("execute", "read"))


def test_what_is_denied_stays_denied() -> None:
    """By name or by kind, whatever mode and list allow."""
    for denied in ("write", "edit"):
        assert not Policy.of(("edit", "write"), (denied,), "acceptEdits").allows(EDIT)


def test_a_tool_keeps_its_first_name() -> None:
    """Later titles are paths and commands; an agent's own word in `_meta` comes before any title."""
    first = tool_of({"title": "bash", "kind": "execute"})
    assert tool_of({"title": "rm"}, first) == first == Tool("execute", "bash")
    assert tool_of({"title": "rm -r ."}) == Tool("other", None)
    named = {"title": "ls", "kind": "execute", "_meta": {"claudeCode": {"toolName": "Bash"}}}
    assert tool_of(named) == Tool("execute", "Bash")
    assert tool_of({"title": 7, "kind": [], "_meta": 3}) == Tool()


def test_an_answer_is_for_this_once_where_there_is_a_choice() -> None:
    """Where nothing says what is meant, nothing is chosen."""
    options = [
        {"optionId": "a", "kind": "allow_always"},
        {"optionId": "b", "kind": "allow_once"},
        {"optionId": "c", "kind": "reject_always"},
        {"optionId": 7, "kind": "reject_once"},
        "nonsense",
    ]
    assert (option_of(options, is_allowed=True), option_of(options, is_allowed=False)) == ("b", "c")
    assert option_of(options[:2], is_allowed=False) is None
