"""What nodes report: every event survives the stream, and junk is told apart from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ledger_events import Event, Finished, Progress, Saved, Started, pack, unpack
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.spend import COST_MAX_USD, TOKENS_MAX, Spend

texts = st.text(st.characters(codec="utf-8"), max_size=20)
times = st.floats(0, 4e9)
fences = st.integers(0, 2**31)
errors = st.builds(ErrorInfo, texts, texts, st.sampled_from(list(Failure)), st.one_of(st.none(), st.floats(0, 1e6)))
tokens = st.integers(0, TOKENS_MAX)
spends = st.lists(
    st.builds(
        Spend,
        st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20),
        *[tokens] * 5,
        st.one_of(st.none(), st.floats(0, COST_MAX_USD)),
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda spend: spend.model,
).map(tuple)
outcomes = st.builds(
    Outcome,
    st.sampled_from(["succeeded", "failed", "cancelled", "expired", "lost"]),
    st.one_of(st.none(), texts),
    st.one_of(st.none(), texts),
    st.one_of(st.none(), errors),
    spends,
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
        spends,
    ),
    st.builds(Saved, texts, fences, fences, texts),
    st.builds(
        Finished,
        texts,
        fences,
        times,
        st.one_of(st.none(), times),
        outcomes,
        st.one_of(st.none(), st.tuples(fences, texts)),
    ),
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


def test_what_spent_nothing_says_nothing_of_it() -> None:
    """An ordinary call's report is what it was before there was money: nothing more is sent, kept or parsed."""
    assert b"$" not in pack([Finished("i", 1, 2.0, 1.0, Outcome("succeeded", "{}")), Progress("i", 1, 1.0)])


def test_a_later_versions_spend_is_read_as_far_as_it_is_known() -> None:
    """What a newer node adds to a line of its bill does not keep its outcome out."""
    spend = Spend("glm-5", 1, 2, 3, cost_usd=0.5)
    packed = pack([Finished("i", 1, 2.0, 1.0, Outcome("succeeded", "{}", spent=(spend,)))])
    longer = packed.replace(b"0.5,false]", b'0.5,false,"new"]')
    assert longer != packed
    assert unpack(longer) == unpack(packed)


_SPENT = b'[{"t":"p","i":"x","f":1,"n":1,"of":null,"m":null,"$":%s}]'


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
        pytest.param(_SPENT % b'{"m":1}', id="spend is no list"),
        pytest.param(_SPENT % b'[["m",1,1,1,1,1,null]]', id="spend is short"),
        pytest.param(_SPENT % b'[["m",1,-1,1,1,1,null,false]]', id="tokens below none"),
        pytest.param(_SPENT % b'[["m",1,1e99,1,1,1,null,false]]', id="tokens are no number"),
        pytest.param(_SPENT % b'[["m",1,99999999999999999,1,1,1,null,false]]', id="more tokens than a row holds"),
        pytest.param(_SPENT % b'[["m",1,true,1,1,1,null,false]]', id="tokens are a truth"),
        pytest.param(_SPENT % b'[["m",1,1,1,1,1,-0.5,false]]', id="money comes back"),
        pytest.param(_SPENT % b'[["m",1,1,1,1,1,"free",false]]', id="cost is a word"),
        pytest.param(_SPENT % b'[["",1,1,1,1,1,1.0,false]]', id="model without a name"),
        pytest.param(_SPENT % b'[["a\\u0000",1,1,1,1,1,1.0,false]]', id="NUL in a model's name"),
        pytest.param(_SPENT % b'[["m",1,1,1,1,1,1.0,false],["m",1,1,1,1,1,1.0,false]]', id="a model twice"),
        pytest.param(_SPENT % (b"[" + b",".join([b"[]"] * 99) + b"]"), id="a hundred models"),
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
