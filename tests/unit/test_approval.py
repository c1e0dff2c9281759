"""The one form of arguments that is digested, and what a person is shown of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.approval import ApprovalState, Question, Taken, canonical, digest, is_sound, shown, shown_line
from tasks.approval_wire import ApprovalView
from tasks.ledger_events import Asked, Resolved, pack, unpack

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_a_door_shows_has_the_digest_that_was_asked(arguments: dict[str, Any]) -> None:
    """Through JSON and the wire's model, in any order of keys: the same arguments, the same digest."""
    text = canonical(arguments)
    assert text.isascii()
    form = dict.fromkeys(("id", "invocation", "node", "fleet_tool", "project", "tool"), "x")
    numbers = {"fence": 1, "asked_at": 1.0, "expires_at": 2.0, "state": ApprovalState.WAITING}
    said = {"arguments": json.loads(text), "arguments_sha256": digest(text)}
    view = ApprovalView.model_validate_json(json.dumps(form | numbers | said))
    assert digest(canonical(view.arguments)) == digest(text) == digest(canonical(dict(reversed(arguments.items()))))


def _deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"deep": value}


@pytest.mark.parametrize("arguments", [{"a": float("nan")}, {"a": "\ud800"}, {"a": {1, 2}}, _deep(190)])
def test_what_no_door_can_carry_is_refused(arguments: dict[str, Any]) -> None:
    """One such question must not make a listing of all unreadable."""
    with pytest.raises((ValueError, TypeError)):
        canonical(arguments)


def test_a_reader_sees_what_would_run() -> None:
    """Nothing acts on a terminal, turns the text around or hides in it; languages stay readable."""
    assert shown("größe 大\nrm -rf /") == "größe 大\nrm -rf /"
    assert shown("a\x1b[2K\rb\x07\x9b\x7f") == "a\\u001b[2K\\rb\\u0007\\u009b\\u007f"
    assert shown("x\u202ey\u200bz\u2028\u00a0\U000e0041") == "x\\u202ey\\u200bz\\u2028\\u00a0\\U000e0041"
    assert shown_line("a\nb") == "a\\nb"


def test_questions_and_their_ends_travel() -> None:
    """As a node tells them."""
    asked = Asked("i1", 3, Question("q1", "Bash", "{}", digest("{}"), 1.0, 2.0, frees_slot=True))
    resolved = Resolved("i1", 3, "q1", Taken.EXPIRED, 4.0)
    assert unpack(pack([asked, resolved])) == [asked, resolved]


def _question(text: str, sha: str | None = None, tool: str = "Bash") -> Question:
    return Question("q", tool, text, digest(text) if sha is None else sha, 1.0, 2.0)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_what_an_honest_node_asks_is_sound(arguments: dict[str, Any]) -> None:
    """Whatever the arguments are."""
    assert is_sound(_question(canonical(arguments)))


@pytest.mark.parametrize(
    "question",
    [
        _question('{"a":1},"arguments_sha256":"forged","x":{'),
        _question('{"b":1, "a":2}'),
        _question("{}", sha="0" * 64),
        _question('{"a":"' + "x" * 200_000 + '"}'),
        _question("[" * 100_000),
        _question("{}", tool="Ba\x00sh"),
    ],
    ids=["no JSON", "not canonical", "another digest", "too long", "too deep", "NUL"],
)
def test_what_a_bad_node_asks_is_not_shown_to_anybody(question: Question) -> None:
    """It would be put into every listing as it is."""
    assert not is_sound(question)


def test_what_cannot_be_seen_is_escaped() -> None:
    """Marks without a place and fillers too: `rm\u3164x` is not `rm x`."""
    assert shown("a\ufe0fb\u3164c\u2800d") == "a\\ufe0fb\\u3164c\\u2800d"
    assert shown("Grüße, 日本") == "Grüße, 日本"
