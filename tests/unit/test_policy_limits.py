"""Rates and quotas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.policy import limits
from orchestrator.policy.limits import Asked, Buckets, Per, Quota, QuotaSpent, Rate, RateLimited, Usage, Used, check
from tasks.invocation import Principal

ANN, BOB = Principal("ann", "acme", frozenset({"agent"})), Principal("bob", "acme", frozenset({"admin"}))
RATE = Rate("r", Per.PRINCIPAL, calls_per_s=2.0, burst=4.0)


def taken(buckets: Buckets, by: Principal = ANN, now_s: float = 0.0, count: int = 1, rate: Rate = RATE) -> bool:
    """Whether so many calls were let through."""
    try:
        buckets.take([rate], by, ["git.status"] * count, now_s)
    except RateLimited:
        return False
    return True


def test_a_burst_then_the_rate() -> None:
    """Four at once, then two a second."""
    buckets = Buckets()
    assert [taken(buckets) for _ in range(5)] == [True] * 4 + [False]
    assert [taken(buckets, now_s=0.5) for _ in range(2)] == [True, False]


def test_a_refusal_says_when_to_come_back() -> None:
    """As `Retry-After`, in whole seconds."""
    buckets = Buckets()
    buckets.take([RATE], ANN, ["t"] * 4, 0.0)
    with pytest.raises(RateLimited, match=r"call again in 0\.5 s") as caught:
        buckets.take([RATE], ANN, ["t"], 0.0)
    assert caught.value.retry_after_s == 1


def test_a_refused_batch_takes_nothing() -> None:
    """All or none, over every rate that is about it."""
    buckets, tight = Buckets(), Rate("tight", Per.TOOL, 1.0, 1.0, tools=("git.push",))
    buckets.take([tight], ANN, ["git.push"], 0.0)
    with pytest.raises(RateLimited, match="tight"):
        buckets.take([RATE, tight], ANN, ["git.status", "git.push"], 0.0)
    assert taken(buckets, count=4)


@pytest.mark.parametrize(
    ("per", "shares"), [(Per.PRINCIPAL, False), (Per.TENANT, True), (Per.TOOL, True), (Per.PRINCIPAL_TOOL, False)]
)
def test_whose_calls_are_counted_together(per: Per, shares: bool) -> None:
    """One client does not use up another's, unless it is meant so."""
    buckets, rate = Buckets(), Rate("r", per, 1.0, 1.0)
    assert taken(buckets, ANN, rate=rate)
    assert taken(buckets, BOB, rate=rate) is not shares


def test_a_rate_is_about_whom_it_names() -> None:
    """Tools by pattern, tenants and roles by name."""
    rate = Rate("r", Per.PRINCIPAL, 1.0, 1.0, ("git.*",), frozenset({"acme"}), frozenset({"agent"}))
    assert rate.key(ANN, "git.push") is not None
    assert [rate.key(ANN, "time.now"), rate.key(BOB, "git.push")] == [None, None]
    assert rate.key(Principal("ann", "other", frozenset({"agent"})), "git.push") is None


def test_more_at_once_than_a_bucket_holds_is_owed() -> None:
    """Else it could never pass."""
    buckets = Buckets()
    assert taken(buckets, count=10)
    assert not taken(buckets, now_s=2.9)
    assert taken(buckets, now_s=3.5)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 6)), max_size=40))
def test_never_more_than_the_burst_and_the_rate(steps: list[tuple[float, int]]) -> None:
    """Over any stretch from the start, whatever is asked for when; a batch is at most a burst here."""
    buckets, now_s, passed = Buckets(), 0.0, 0
    for pause_s, count in steps:
        now_s += pause_s
        if taken(buckets, now_s=now_s, count=min(count, 4)):
            passed += min(count, 4)
        assert passed <= RATE.burst + RATE.calls_per_s * now_s + 1e-6


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one not seen for longest goes."""
    monkeypatch.setattr(limits, "BUCKETS_MAX", 2)
    buckets = Buckets()
    for name in "abc":
        assert taken(buckets, Principal(name), count=4)
    assert taken(buckets, Principal("a"))
    assert not taken(buckets, Principal("c"))


DAY_S = 3600.0


@pytest.mark.parametrize(
    ("quota", "runs", "is_within"),
    [
        (Quota("q", "acme", calls_per_day=11), 0, True),
        (Quota("q", "acme", calls_per_day=10), 0, False),
        (Quota("q", "acme", "shop", calls_per_day=5), 0, True),
        (Quota("q", "acme", "shop", calls_per_day=4), 0, False),
        (Quota("q", "acme", "other", calls_per_day=0), 0, True),
        (Quota("q", "other", calls_per_day=0), 0, True),
        (Quota("q", "acme", runs=3), 1, True),
        (Quota("q", "acme", runs=2), 1, False),
        (Quota("q", "acme", runs=0), 0, True),
        (Quota("q", "acme", tokens_per_day=100), 1, False),
        (Quota("q", "acme", tokens_per_day=101), 1, True),
        (Quota("q", "acme", tokens_per_day=0), 0, True),
        (Quota("q", "acme", usd_per_day=1.5), 1, False),
    ],
)
def test_a_quota_is_its_tenants_or_its_projects(quota: Quota, runs: int, is_within: bool) -> None:
    """Ten calls today, four of them the shop's; two runs, 100 tokens, 1.50 USD. Tokens and money bind runs only."""
    usage = Usage({("acme", "shop"): Used(4, 60, 1.0, 1), ("acme", None): Used(6, 40, 0.5, 1), ("x", "shop"): Used(99)})
    if is_within:
        check([quota], usage, "acme", [Asked("shop", bool(runs))], day_left_s=DAY_S)
    else:
        with pytest.raises(QuotaSpent, match="'q'"):
            check([quota], usage, "acme", [Asked("shop", bool(runs))], day_left_s=DAY_S)


def test_a_batch_over_many_projects_is_one_to_its_tenants_quota() -> None:
    """However it is spread; a project's own quota sees its own part."""
    asked = [Asked(f"p{number}", is_run=True) for number in range(11)]
    with pytest.raises(QuotaSpent, match="calls a day"):
        check([Quota("q", "acme", calls_per_day=10)], Usage(), "acme", asked, day_left_s=DAY_S)
    with pytest.raises(QuotaSpent, match="runs of agents"):
        check([Quota("q", "acme", runs=10)], Usage(), "acme", asked, day_left_s=DAY_S)
    check([Quota("q", "acme", "p1", calls_per_day=1, runs=1)], Usage(), "acme", asked, day_left_s=DAY_S)
