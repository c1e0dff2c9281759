"""What is decided in cases that an operator would ask about, and what the reasons say."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.replay import replay
from orchestrator.autoscaler.decide.season import BUCKET_S, DAY_S, Season
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy, ScaleStrategy
from orchestrator.autoscaler.values import ClaimState, LaneSeen, MachineSeen, Observation, Override, Rung
from tasks.invocation import Lane

POLICY = ScalePolicy("p", (Rung("local"),))
AT = 1_000_000.0


def steady(at: float, machines: int, rate: float, *, billing_s: float = 1.0) -> Observation:
    """A pool of so many ready machines of 4 slots under an even load of calls of 1.5 s."""
    lane = LaneSeen(
        running=round(rate * 1.5),
        slots=4 * machines,
        slots_per_machine=4,
        arrivals_per_s=rate,
        service_mean_s=1.5,
        wait_p95_s=0.0,
    )
    ready = tuple(MachineSeen(f"c{index}", f"p-c{index}", ClaimState.READY) for index in range(machines))
    return Observation("p", at, {Lane.TOOLS: lane}, ready, boot_p90_s=75.0, billing_s=billing_s)


def test_a_pool_at_zero_gets_one_machine_for_a_call() -> None:
    """Nothing is there and a call waits, or nobody could run it: one machine, and the reason says so."""
    policy = replace(POLICY, min_machines=0)
    idle = decide(Observation("p", AT), policy, History())
    assert (idle.target, idle.victims) == (0, ())
    for seen in (
        Observation("p", AT, {Lane.TOOLS: LaneSeen(waiting=3)}),
        Observation("p", AT, has_unmet=True),
        Observation("p", AT, {Lane.TOOLS: LaneSeen(waiting=3, slots_per_machine=4)}),
    ):
        assert decide(seen, policy, History()).target == 1


def test_a_first_machine_says_what_it_is_for() -> None:
    """Calls that wait, or a pool that nobody knows: who made no call is not told of calls."""
    policy = replace(POLICY, min_machines=0)
    said = (
        (Observation("p", AT, has_unmet=True), "calls wait that no node could run and there is no machine: one"),
        (Observation("p", AT, is_unknown=True), "nobody knows yet what this pool offers: one to learn it from"),
    )
    for seen, text in said:
        decision = decide(seen, policy, History())
        assert (decision.target, decision.reasons[-1].rule, decision.reasons[-1].text) == (1, "from-zero", text)


def test_the_last_machine_goes_after_a_long_silence_only() -> None:
    """With `idle_to_zero_s` of nothing it goes; before that it stays, and the decision says for how long."""
    policy = replace(POLICY, min_machines=0)
    observations = [steady(AT + 15.0 * tick, 1, 0.0) for tick in range(60)]
    decisions = replay(observations, policy, FleetLimits())
    gone = [decision.at - AT for decision in decisions if decision.target == 0]
    assert gone[0] == policy.idle_to_zero_s
    assert decisions[10].reasons[-1].rule in {"settle", "to-zero"}
    assert "600 s: none" in next(one for one in decisions if one.target == 0).reasons[-1].text


def test_a_paid_hour_is_used_to_its_end() -> None:
    """An idle machine that is paid for serves on; near the end of its hour it goes; in its last minute, it stays."""
    ends = {1800.0: 0, 500.0: 1, 30.0: 0}
    for left_s, gone in ends.items():
        seen = steady(AT, 3, 0.1, billing_s=3600.0)
        machines = tuple(replace(one, paid_left_s=left_s) for one in seen.machines)
        history = History(((AT - 200.0, 1),), AT - 1000.0, AT - 15.0)
        decision = decide(replace(seen, machines=machines), POLICY, history)
        assert len(decision.victims) == gone, left_s
        assert decision.target == 3 - gone


def test_a_busy_machine_that_should_go_is_cordoned() -> None:
    """Calls are spread, so that no machine is idle: the one that holds least gets nothing new, and is not ended."""
    seen = steady(AT, 5, 2.0)
    machines = tuple(replace(one, held=3 - index % 3) for index, one in enumerate(seen.machines))
    history = History(((AT - 200.0, 2),), AT - 1000.0, AT - 15.0)
    decision = decide(replace(seen, machines=machines), POLICY, history)
    assert (decision.victims, decision.cordon, decision.target) == ((), ("c2",), 4)


def test_failed_boots_and_noticed_machines_are_replaced() -> None:
    """What will not join and what is taken away goes, and the target does not fall for it."""
    seen = steady(AT, 3, 6.0)
    machines = (
        replace(seen.machines[0], state=ClaimState.BOOTING, age_s=2000.0),
        replace(seen.machines[1], has_notice=True, held=2),
        seen.machines[2],
    )
    decision = decide(replace(seen, machines=machines), POLICY, History())
    assert decision.victims == ("c0", "c1")
    assert decision.target >= 3
    assert {reason.rule for reason in decision.reasons} >= {"failed-boot", "notice"}


def test_a_person_is_obeyed_until_the_word_expires() -> None:
    """An override sets the target within the limits, names who said so, and ends by itself."""
    seen = steady(AT, 2, 1.0)
    obeyed = decide(seen, POLICY, History(), Override(40, AT + 60.0, "ann"))
    assert obeyed.target == 10
    assert obeyed.reasons[0].text == "ann wants 40 machines for another 60 s"
    assert decide(seen, POLICY, History(), Override(40, AT, "ann")).target == 2


def test_what_other_days_brought_is_ordered_ahead() -> None:
    """A burst that came at this time yesterday finds its machines booted; without a season it does not."""
    at = 10 * DAY_S + 40 * BUCKET_S
    season = Season()
    for tick in range(int(2 * BUCKET_S / 15.0)):
        then = at - DAY_S + BUCKET_S + 15.0 * tick
        season = season.learn(then, {Lane.TOOLS: 12.0 if tick < BUCKET_S / 15.0 else 1.0})
    seen = steady(at + BUCKET_S - 100.0, 1, 1.0)
    decision = decide(seen, POLICY, History(season=season))
    assert decision.target >= 5
    assert decision.reasons[0].rule == "season"
    assert decide(seen, replace(POLICY, use_season=False), History(season=season)).target == 1


def test_a_crowd_that_came_once_is_not_expected_on_the_third_day() -> None:
    """The lower of two days counts: one odd afternoon buys nothing for long."""
    season = Season()
    for day, rate in ((0, 12.0), (1, 1.0)):
        for then in (day * DAY_S, day * DAY_S + BUCKET_S):
            season = season.learn(then, {Lane.TOOLS: rate})
    expected = season.ahead(Lane.TOOLS, 2 * DAY_S, 10.0)
    assert expected is not None
    assert expected < 1.0


def test_one_long_run_does_not_order_a_fleet() -> None:
    """One agent run a minute of half an hour each is not thirty runs at once: what is there and comes soon counts."""
    lane = LaneSeen(
        waiting=1,
        running=2,
        slots=2,
        slots_per_machine=2,
        arrivals_per_s=1 / 60,
        service_mean_s=1800.0,
        service_scv=1.0,
    )
    seen = Observation("p", AT, {Lane.AGENTS: lane}, steady(AT, 1, 0.0).machines, boot_p90_s=75.0)
    assert 2 <= decide(seen, POLICY, History()).target <= 6


def test_nodes_joined_by_hand_are_capacity() -> None:
    """What others brought need not be ordered."""
    seen = steady(AT, 1, 6.0)
    lane = replace(seen.lanes[Lane.TOOLS], slots=4 + 20)
    helped = replace(seen, lanes={Lane.TOOLS: lane}, others=5)
    assert decide(seen, POLICY, History()).target > 1
    assert decide(helped, POLICY, History()).target == 1


def test_errors_alone_buy_nothing_and_are_told() -> None:
    """A broken server is an alert in either strategy, and no reason for machines."""
    seen = steady(AT, 2, 2.0)
    lane = replace(seen.lanes[Lane.TOOLS], error_rate=0.5)
    for strategy in ScaleStrategy:
        decision = decide(replace(seen, lanes={Lane.TOOLS: lane}), replace(POLICY, strategy=strategy), History())
        assert decision.target == 2
        assert "errors 50.0% are over 1.0%" in decision.alerts[0]


def test_the_reason_is_in_words_and_numbers() -> None:
    """`mcpfleet scale explain` prints them: load, time, slots, target, machines."""
    seen = steady(AT, 1, 12.4)
    lane = replace(seen.lanes[Lane.TOOLS], slots_per_machine=8, slots=40)
    text = decide(replace(seen, lanes={Lane.TOOLS: lane}), POLICY, History()).reasons[0].text
    assert text == ("tools: 12.4 calls/s at 1.5 s need 20 slots for p95 wait under 5 s; with 10% more: 3 machines of 8")
