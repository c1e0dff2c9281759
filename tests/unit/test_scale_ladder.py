"""Which rung comes next, and how long a pool pauses: pure, from the claims alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.autoscaler.act.boot_pause import PAUSE_MAX_S, PAUSE_S, boot_pause
from orchestrator.autoscaler.act.ladder import PASSED_BY_MAX_S, PASSED_BY_S, REFUSALS, next_rung, passed_by
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, NodeClaim, Rung

A, B, SPOT = Rung("one", "s", "eu-1"), Rung("one", "s", "us-1"), Rung("two", "s", "eu-2", is_spot=True)
POLICY = ScalePolicy("p", (SPOT, A, B), may_use_spot=True)


def claim(rung: Rung = A, *, at: float = 0.0, failed_with: str = "", failed_at: float | None = None) -> NodeClaim:
    """One that ended, or stands."""
    made = NodeClaim(f"c{at:.0f}", "p", f"p-c{at:.0f}", rung, ClaimState.GONE, at, at, failed_with=failed_with)
    return replace(made, failed_at=failed_at if failed_with else None, error=failed_with)


def served(rung: Rung = A, *, at: float) -> NodeClaim:
    """One whose machine came and joined."""
    return replace(claim(rung, at=at), machine_id="m", ready_at=at + 10.0)


def test_the_ladder_is_tried_from_the_top() -> None:
    """Without refusals the best rung is taken."""
    assert next_rung(POLICY, [], 0.0) == SPOT


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (replace(POLICY, may_use_spot=False), A),
        (replace(POLICY, regions=("us-*",)), B),
        (replace(POLICY, regions=("eu-1", "us-*")), A),
        (replace(POLICY, regions=("ap-*",)), None),
    ],
)
def test_a_rung_that_is_not_allowed_is_never_taken(policy: ScalePolicy, expected: Rung | None) -> None:
    """Spot needs consent, and data stays in its regions, whatever the clouds have."""
    assert next_rung(policy, [], 0.0) == expected


def test_regions_that_calls_ask_for_come_first() -> None:
    """Among allowed rungs; where none is there the best one is taken all the same."""
    assert next_rung(POLICY, [], 0.0, wanted=["us-*"]) == B
    assert next_rung(POLICY, [], 0.0, wanted=["ap-*"]) == SPOT


@given(code=st.sampled_from(sorted(PASSED_BY_S)), rounds=st.integers(1, 12))
def test_each_refusal_in_a_row_doubles_the_wait(code: str, rounds: int) -> None:
    """Up to an hour, and a machine that was made there forgets them."""
    refusals = [claim(at=10_000.0 * n, failed_with=code, failed_at=10_000.0 * n + 1) for n in range(rounds)]
    found = passed_by(replace(POLICY, ladder=(A,)), refusals, refusals[-1].created_at + 2)
    assert [one.until for one in found] == [
        refusals[-1].created_at + 1 + min(PASSED_BY_MAX_S, PASSED_BY_S[code] * 2.0 ** (rounds - 1))
    ]
    after = [*refusals, served(at=10_000.0 * rounds)]
    assert passed_by(replace(POLICY, ladder=(A,)), after, 10_000.0 * rounds) == []


def test_refusals_of_one_burst_are_one_refusal() -> None:
    """Four machines ordered together and refused together do not make the wait eight times as long."""
    burst = [claim(at=float(n), failed_with="out_of_capacity", failed_at=10.0 + n) for n in range(4)]
    assert [one.until for one in passed_by(POLICY, burst, 20.0)] == [13.0 + PASSED_BY_S["out_of_capacity"]]


def test_bad_credentials_close_the_whole_account() -> None:
    """Every rung of that provider; they are tried again once the file was read anew."""
    refused = [claim(A, at=5.0, failed_with="credentials_refused", failed_at=6.0)]
    assert {one.rung for one in passed_by(POLICY, refused, 10.0)} == {A, B}
    assert passed_by(POLICY, refused, 10.0, read_at=7.0) == []
    order = [claim(A, at=5.0, failed_with="order_refused", failed_at=6.0)]
    assert {one.rung for one in passed_by(POLICY, order, 10.0)} == {A}


@given(
    failures=st.lists(
        st.tuples(
            st.floats(0, 1e5), st.floats(0, 1e3), st.sampled_from(sorted(REFUSALS)), st.sampled_from([A, B, SPOT])
        ),
        max_size=30,
    )
)
def test_every_refusal_is_forgiven_in_time(failures: list[tuple[float, float, str, Rung]]) -> None:
    """Nothing is passed by for longer than an hour after it was refused last."""
    claims = [claim(rung, at=at, failed_with=code, failed_at=at + took) for at, took, code, rung in failures]
    assert next_rung(POLICY, claims, 1e5 + 1e3 + PASSED_BY_MAX_S + 1) == SPOT


@given(rounds=st.integers(1, 20))
def test_boots_that_fail_pause_ever_longer(rounds: int) -> None:
    """Doubling to an hour; from the second round on one machine is tried at a time; one that joins forgives all."""
    claims = [claim(at=1e4 * n, failed_with="boot_timeout", failed_at=1e4 * n + 900) for n in range(rounds)]
    pause = boot_pause(claims)
    assert pause is not None
    assert pause.until - (1e4 * (rounds - 1) + 900) == min(PAUSE_MAX_S, PAUSE_S * 2.0 ** (rounds - 1))
    assert pause.may_order(pause.until - 1) == 0
    assert pause.may_order(pause.until) == (None if rounds == 1 else 1)
    assert boot_pause([*claims, served(at=1e4 * rounds)]) is None


def test_a_refusal_is_no_failed_boot() -> None:
    """No machine was made: the ladder's business, not the image's."""
    assert boot_pause([claim(at=1.0, failed_with="out_of_capacity", failed_at=2.0)]) is None


def test_a_machine_that_served_and_vanished_is_no_failed_boot() -> None:
    """The image is well: its replacement is ordered at once."""
    served_for_a_while = replace(claim(at=1.0, failed_with="machine_vanished", failed_at=900.0), ready_at=60.0)
    assert boot_pause([served_for_a_while]) is None
    assert boot_pause([replace(served_for_a_while, ready_at=None)]) is not None
