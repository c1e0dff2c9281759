"""What nodes report: every event survives the stream, and junk is told apart from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ledger_events import Event, Finished, Progress, Saved, Started, pack, unpack
from tasks.outcome import ErrorInfo, Failure, Outcome

texts = st.text(st.characters(codec="utf-8"), max_size=20)
times = st.floats(0, 4e9)
fences = st.integers(0, 2**31)
errors = st.builds(ErrorInfo, texts, texts, st.sampled_from(list(Failure)), st.one_of(st.none(), st.floats(0, 1e6)))
outcomes = st.builds(
    Outcome,
    st.sampled_from(["succeeded", "failed", "cancelled", "expired", "lost"]),
    st.one_of(st.none(), texts),
    st.one_of(st.none(), texts),
    st.one_of(st.none(), errors),
)
events = st.one_of(
    st.builds(Started, texts, fences, times),
    st.builds(
        Progress,
        texts,
        fences,
        st.floats(-1e9, 1e9),
        st.one_of(st.none(), st.floats(0, 1e9)),
        st.one_of(st.none(), texts),
    ),
    st.builds(Saved, texts, fences, fences, texts),
    st.builds(Finished, texts, fences, times, st.one_of(st.none(), times), outcomes),
)


@given(st.lists(events, max_size=10))
def test_what_is_packed_comes_out_whole(reported: list[Event]) -> None:
    """Every field of every kind, in order."""
    assert unpack(pack(reported)) == reported


def test_result_is_carried_as_text() -> None:
    """A tool's answer is never parsed and written anew on its way: odd spacing and key order stay."""
    result = '{ "content" : [ {"text":"\\u00e9", "type":"text"} ],"isError":false }'
    (event,) = unpack(pack([Finished("i", 1, 2.0, 1.0, Outcome("succeeded", result))]))
    assert isinstance(event, Finished)
    assert event.outcome.result_json == result


def test_call_that_never_started_says_so() -> None:
    """No start time is not the same as a start at zero."""
    never = Finished(
        "i", 1, 2.0, None, Outcome("failed", error=ErrorInfo("refused", "no server", Failure.NOT_STARTED, 3.0))
    )
    assert unpack(pack([never])) == [never]


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00", id="not text"),
        pytest.param(b"{}{", id="not JSON"),
        pytest.param(b'{"t":"s"}', id="not a list"),
        pytest.param(b"[1]", id="not an object"),
        pytest.param(b'[{"t":"s","i":"x"}]', id="field missing"),
        pytest.param(b'[{"t":"q","i":"x","f":1}]', id="unknown kind"),
        pytest.param(b'[{"t":"s","i":"x","f":"many","at":1}]', id="fence is no number"),
        pytest.param(
            b'[{"t":"f","i":"x","f":1,"at":1,"from":1,"how":"failed","r":null,"b":null,"x":{"c":"a"}}]',
            id="half an error",
        ),
        pytest.param(
            b'[{"t":"f","i":"x","f":1,"at":1,"from":1,"how":"failed","r":null,"b":null,"x":{"c":"a","m":"b","k":"odd","w":null}}]',
            id="unknown class of failure",
        ),
    ],
)
def test_junk_is_refused_with_one_of_the_named_errors(junk: bytes) -> None:
    """The reader skips the entry; nothing else may come out of it."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        unpack(junk)
