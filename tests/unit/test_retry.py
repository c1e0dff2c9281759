"""When a call is tried again and after how long: a table of cases, and the distribution of the waits."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.outcome import ErrorInfo, Failure
from tasks.retry import Again, GiveUp, RetryPolicy, delay_s, next_attempt

DEFAULT = RetryPolicy()
ANSWERS = RetryPolicy(retry_tool_errors=True)
NEVER = RetryPolicy(attempts=1)
ALMOST_ONE = 1.0 - 2.0**-53


def error(failure: Failure, retry_after_s: float | None = None) -> ErrorInfo:
    """What a node said."""
    return ErrorInfo("code", "message", failure, retry_after_s)


TABLE = [
    pytest.param(Failure.NOT_STARTED, None, 0, False, DEFAULT, Again(0.5, True), id="not started: unsafe is repeated"),
    pytest.param(
        Failure.NOT_STARTED, None, 2, False, DEFAULT, Again(1.0, True), id="second wait has twice the ceiling"
    ),
    pytest.param(Failure.NOT_STARTED, 7.0, 1, False, DEFAULT, Again(7.0, True), id="Retry-After is honoured"),
    pytest.param(Failure.NOT_STARTED, 0.1, 1, False, DEFAULT, Again(0.5, True), id="Retry-After below our own wait"),
    pytest.param(Failure.NOT_STARTED, None, 3, True, DEFAULT, GiveUp("retries_exhausted"), id="third of three"),
    pytest.param(Failure.NOT_STARTED, None, 1, True, NEVER, GiveUp("retries_exhausted"), id="attempts 1 never retries"),
    pytest.param(Failure.MAYBE_STARTED, None, 1, True, DEFAULT, Again(0.5, True), id="maybe started, safe"),
    pytest.param(
        Failure.MAYBE_STARTED, None, 1, False, DEFAULT, GiveUp("unsafe_to_repeat"), id="maybe started, unsafe"
    ),
    pytest.param(
        Failure.MAYBE_STARTED, None, 9, False, DEFAULT, GiveUp("unsafe_to_repeat"), id="unsafe before exhausted"
    ),
    pytest.param(Failure.WAIT_UNTIL, 90.0, 9, False, DEFAULT, Again(90.0, False), id="wait-until costs no try"),
    pytest.param(Failure.WAIT_UNTIL, None, 1, True, DEFAULT, Again(1.0, False), id="wait-until without a time"),
    pytest.param(Failure.TOOL_ERROR, None, 1, True, DEFAULT, GiveUp("tool_error"), id="isError is an answer"),
    pytest.param(Failure.TOOL_ERROR, None, 1, False, ANSWERS, Again(0.5, True), id="isError declared retryable"),
    pytest.param(Failure.PERMANENT, 5.0, 1, True, ANSWERS, GiveUp("permanent"), id="permanent, whatever else is said"),
    pytest.param(Failure.POISON, None, 1, True, DEFAULT, GiveUp("poison"), id="poison"),
]


@pytest.mark.parametrize(("failure", "retry_after_s", "tries", "is_safe", "policy", "wanted"), TABLE)
def test_each_class_of_failure_has_its_own_answer(
    *,
    failure: Failure,
    retry_after_s: float | None,
    tries: int,
    is_safe: bool,
    policy: RetryPolicy,
    wanted: Again | GiveUp,
) -> None:
    """The whole table of what may be repeated, with half of the interval drawn."""
    assert next_attempt(error(failure, retry_after_s), tries=tries, is_safe=is_safe, policy=policy, draw=0.5) == wanted


def test_every_class_of_failure_is_in_the_table() -> None:
    """A new class of failure must be decided here before it exists."""
    assert {case.values[0] for case in TABLE} == set(Failure)


policies = st.builds(
    RetryPolicy, st.integers(1, 100), st.floats(0, 3600), st.floats(1, 10), st.floats(0, 86_400), st.booleans()
)


@given(
    failure=st.sampled_from(list(Failure)),
    retry_after_s=st.one_of(st.none(), st.floats(0, 1e6)),
    tries=st.integers(0, 200),
    is_safe=st.booleans(),
    policy=policies,
    draw=st.floats(0, 1, exclude_max=True),
)
def test_any_failure_is_answered_and_unsafe_work_is_never_repeated(
    *, failure: Failure, retry_after_s: float | None, tries: int, is_safe: bool, policy: RetryPolicy, draw: float
) -> None:
    """No policy and no count of tries makes an unsafe call that may have started run again."""
    answer = next_attempt(error(failure, retry_after_s), tries=tries, is_safe=is_safe, policy=policy, draw=draw)
    if isinstance(answer, Again):
        assert answer.wait_s >= 0
        assert not (failure is Failure.MAYBE_STARTED and not is_safe)
        assert failure not in {Failure.PERMANENT, Failure.POISON}
        assert tries < policy.attempts or not answer.counts


@pytest.mark.parametrize(
    ("tries", "ceiling_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (7, 30.0), (1000, 30.0)]
)
def test_ceiling_doubles_up_to_the_cap(tries: int, ceiling_s: float) -> None:
    """1, 2, 4, … 30 seconds; any number of tries stays finite."""
    assert delay_s(tries, DEFAULT, ALMOST_ONE) == pytest.approx(ceiling_s)
    assert delay_s(tries, DEFAULT, 0.0) == 0.0


@pytest.mark.parametrize("tries", [1, 3, 6, 20])
def test_waits_are_spread_evenly_over_the_whole_interval(tries: int) -> None:
    """Cap first, then spread: late tries are as uniform as early ones, and no crowd waits exactly the cap.

    Kolmogorov and Smirnov's distance to the uniform distribution, 10,000 draws of a fixed seed;
    1.63 / sqrt(n) is its 1 % point. Spreading before capping fails it from the sixth try on.
    """
    draws = random.Random(20_261_120)
    number = 10_000
    ceiling_s = min(DEFAULT.cap_s, DEFAULT.first_wait_s * DEFAULT.factor ** (tries - 1))
    waits = sorted(delay_s(tries, DEFAULT, draws.random()) / ceiling_s for _ in range(number))
    distance = max(max(wait - index / number, (index + 1) / number - wait) for index, wait in enumerate(waits))
    assert distance < 1.63 / number**0.5
    assert len(set(waits)) > 0.99 * number


def test_mean_wait_is_half_the_cap_for_late_tries() -> None:
    """Full jitter halves the load, it does not shift it."""
    draws = random.Random(7)
    waits = [delay_s(50, DEFAULT, draws.random()) for _ in range(10_000)]
    assert fmean(waits) == pytest.approx(15.0, rel=0.03)


@pytest.mark.parametrize("tries", [0, -1])
def test_tries_count_from_one(tries: int) -> None:
    """Off by one in a caller is an error and not a wait of half a second."""
    with pytest.raises(ValueError, match="from 1"):
        delay_s(tries, DEFAULT, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"first_wait_s": -1.0}, {"cap_s": -0.1}, {"factor": 0.5}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """Where it is made, not at the first failure."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
