"""What one call spent: every request once, under a name with a price where there is one, never a made-up cost."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.spend import MODELS_MAX, OTHERS, TOKENS_MAX, Spend, Spent, pack_spent, unpack_spent
from worker.sidecars.bill import Bill, agreed
from worker.sidecars.meter import StreamMeter
from worker.sidecars.sidecar import Ending, Fault, Result, Usage
from worker.sidecars.spend import Price, Prices

PRICES = Prices({"claude": Price(3.0, 15.0), "glm-5": Price(1.0, 3.2)})
START = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 100, "output_tokens": 1}}}
PART = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 400}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 90}}
STOP = {"type": "message_stop"}


def metered(*events: dict[str, object], asked_bytes: int = 4000) -> tuple[str, Usage]:
    """What a meter makes of them, torn into pieces of 7 bytes."""
    meter = StreamMeter(is_stream=True, asked_bytes=asked_bytes)
    text = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    for start in range(0, len(text), 7):
        meter.feed(text[start : start + 7])
    return meter.total()


def test_requests_add_up_by_model_and_are_told_as_they_come() -> None:
    """Each telling is all of it; a cost that is not known makes the model's unknown, not the others'."""
    told: list[Spent] = []
    bill = Bill(told.append)
    bill.add("a", Usage(1, 2, 3, 4), 0.5)
    bill.add("a", Usage(10, 20, is_estimated=True), 0.25)
    bill.add("b", Usage(5), None)
    assert bill.spent() == (Spend("a", 2, 11, 22, 3, 4, 0.75, is_estimated=True), Spend("b", 1, 5))
    assert [len(spent) for spent in told] == [1, 1, 2]
    assert told[-1] == bill.spent()
    assert (bill.cost_usd, bill.known_usd) == (None, 0.75)


def test_a_missing_price_is_not_made_up_for_later() -> None:
    """Some requests of a model without a price: what all of them cost is not known any more."""
    bill = Bill()
    bill.add("a", Usage(1), None)
    bill.add("a", Usage(1), 1.0)
    assert bill.spent()[0].cost_usd is None


@given(
    st.lists(
        st.tuples(
            st.text(max_size=300),
            st.builds(Usage, *[st.integers(0, 2**64)] * 4),
            st.one_of(st.none(), st.floats()),
        ),
        max_size=60,
    )
)
def test_whatever_a_provider_says_can_be_sent_and_kept(requests: list[tuple[str, Usage, float | None]]) -> None:
    """Names with anything in them, numbers of any size, costs that are none: the bill keeps to its bounds."""
    bill = Bill()
    for request in requests:
        bill.add(*request)
    assert unpack_spent(orjson.loads(orjson.dumps(pack_spent(bill.spent())))) == bill.spent()
    assert sum(one.requests for one in bill.spent()) == len(requests)


def test_an_agent_that_asks_for_any_name_fills_no_table() -> None:
    """Beyond the first so many they are others."""
    bill = Bill()
    for number in range(MODELS_MAX + 5):
        bill.add(f"m-{number}", Usage(TOKENS_MAX), math.inf)
    assert len(bill.spent()) == MODELS_MAX + 1
    assert (bill.spent()[-1].model, bill.spent()[-1].requests) == (OTHERS, 5)


@pytest.mark.parametrize(
    ("answered", "asked", "name", "is_priced"),
    [
        pytest.param("claude-x", "opus", "claude-x", True, id="who answered"),
        pytest.param(
            "/models/a.gguf", "glm-5-air", "glm-5-air", True, id="who was asked, where the other has no price"
        ),
        pytest.param("", "glm-5", "glm-5", True, id="nobody says who answered"),
        pytest.param("x", "y", "x", False, id="no price at all"),
    ],
)
def test_a_request_counts_under_a_name_that_has_a_price(answered: str, asked: str, name: str, is_priced: bool) -> None:
    """A gateway's own names must not make every cost unknown."""
    model, price = PRICES.billed(answered, asked)
    assert (model, price is not None) == (name, is_priced)


def test_a_whole_answer_is_counted_as_the_provider_counts_it() -> None:
    """Its last word on the output, nothing of our own."""
    assert metered(START, PART, DELTA, STOP) == ("claude-x", Usage(100, 90))


def test_an_answer_that_breaks_off_is_counted_roughly_and_says_so() -> None:
    """The provider bills what it said until then; its count never came."""
    model, usage = metered(START, PART)
    assert (model, usage.input, usage.is_estimated) == ("claude-x", 100, True)
    assert 50 <= usage.output <= 200


def test_an_answer_without_usage_is_counted_roughly() -> None:
    """Of an endpoint that says none: by what was asked and said. It is not free."""
    _, usage = metered({"type": "message_start", "message": {"model": "m"}}, PART, STOP)
    assert usage.is_estimated
    assert usage.input >= 500
    assert usage.output >= 50


def test_the_end_of_an_answer_is_seen_before_it_is_passed_on() -> None:
    """Who asked may make up its own bill as soon as it has the end: ours is made by then."""
    meter = StreamMeter(is_stream=True)
    meter.feed(b"data: " + orjson.dumps(DELTA) + b"\n\n")
    assert not meter.is_over
    meter.feed(b"data: " + orjson.dumps(STOP) + b"\n\n")
    assert meter.is_over


def test_a_limits_result_has_the_bills_figures() -> None:
    """A run that was ended by the clock knows no figures; what it used is known all the same."""
    bill = Bill()
    bill.add("a", Usage(1, 2), 0.5)
    result = agreed(Result(Ending.LIMIT, "too long", Fault.WALL), bill, "glm", is_counted=True)
    assert (result.usage, result.cost_usd) == (Usage(1, 2), 0.5)


def test_a_runtime_that_counts_itself_is_put_on_the_bill() -> None:
    """Its requests do not pass through the node: its Result is all that is known."""
    bill = Bill()
    result = agreed(
        Result(Ending.SUCCEEDED, "done", usage=Usage(7, 8), cost_usd=0.1), bill, "opencode", is_counted=False
    )
    assert bill.spent() == (Spend("opencode", 1, 7, 8, cost_usd=0.1),)
    assert (result.usage, result.cost_usd) == (Usage(7, 8), 0.1)
    assert agreed(Result(Ending.FAILED, "no"), Bill(), "x", is_counted=False) == Result(Ending.FAILED, "no")


def test_the_word_of_an_agent_that_is_counted_is_no_figure() -> None:
    """It may say any sum; what passed the node is what the fleet knows."""
    bill = Bill()
    result = agreed(Result(Ending.SUCCEEDED, "done", usage=Usage(7, 8), cost_usd=1e12), bill, "x", is_counted=True)
    assert (bill.spent(), result.cost_usd) == ((), 1e12)
