"""Hysteresis as a table of checks and verdicts, and as what holds for any order of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.health import BAD_IN_A_ROW, GOOD_IN_A_ROW, HEALTHY, UNHEALTHY, Health

CHECKS = st.text("+-", max_size=60)


def _verdicts(checks: str, start: Health = HEALTHY) -> str:
    """`h` or `u` after each check, `+` good and `-` bad."""
    said, health = "", start
    for check in checks:
        health = health.after(is_good=check == "+")
        said += "h" if health.is_healthy else "u"
    return said


@pytest.mark.parametrize(
    ("checks", "verdicts"),
    [
        ("--", "hh"),
        ("---", "hhu"),
        ("--+--+--", "hhhhhhhh"),
        ("---+", "hhuu"),
        ("---++", "hhuuh"),
        ("---+-+-+", "hhuuuuuu"),
        ("---++--", "hhuuhhh"),
        ("---++---", "hhuuhhhu"),
    ],
)
def test_three_bad_ones_close_and_two_good_ones_open(checks: str, verdicts: str) -> None:
    """In a row: one of the other kind begins the count anew."""
    assert _verdicts(checks) == verdicts


def test_what_begins_unhealthy_says_how_many_good_checks_it_needs() -> None:
    """People are told what is missing."""
    assert (UNHEALTHY.missing, UNHEALTHY.after(is_good=True).missing, HEALTHY.missing) == (2, 1, 0)
    assert UNHEALTHY.after(is_good=True).after(is_good=False).missing == GOOD_IN_A_ROW


@given(CHECKS)
def test_the_verdict_turns_only_on_a_whole_row(checks: str) -> None:
    """For any order of checks: what turned it was a row of its length, ending there."""
    verdicts = "h" + _verdicts(checks)
    for end, (before, after) in enumerate(pairwise(verdicts), start=1):
        if before + after == "hu":
            assert checks[:end].endswith("-" * BAD_IN_A_ROW)
        if before + after == "uh":
            assert checks[:end].endswith("+" * GOOD_IN_A_ROW)


@given(CHECKS)
def test_a_whole_row_always_turns_it(checks: str) -> None:
    """Whatever came before, enough of one kind is enough."""
    assert _verdicts(checks + "-" * BAD_IN_A_ROW)[-1] == "u"
    assert _verdicts(checks + "+" * GOOD_IN_A_ROW)[-1] == "h"
