"""A pool of machines on SimPy's clock: calls queue, start, end; machines boot, are paid for, leave and are lost.

Owns what the actuator and a provider do. Refuses to decide: a rule does, on an Observation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log
from random import Random
from typing import Any, Protocol

import simpy

from benchmarks.sim.calls import SLOTS, Box, Calls
from benchmarks.sim.eyes import TICK_S, Eyes
from benchmarks.sim.traces import HOUR_S, Drawn
from orchestrator.autoscaler.values import COMING, LIVE, ClaimState, Decision, MachineSeen, Observation

END_S = 5.0
"""Idle and told to leave, to gone."""
LOST_S = 20.0
"""A machine that is gone without a word is noticed, and its calls go back to the queue."""
PRICE_EUR_H = 0.01


class Rule(Protocol):
    """What decides."""

    def decide(self, seen: Observation) -> Decision:
        """Called every tick."""
        ...


@dataclass
class Books:
    """What is judged.

    Attributes:
        waits: accepted to first started, in order of arrival; a call that never started waited until the end.
        responses: accepted to ended.
        sizes: machines ready, and on the way or ready, per tick.
        events: decisions that changed the size.
    """

    waits: list[float] = field(default_factory=list)
    responses: list[float] = field(default_factory=list)
    sizes: list[tuple[float, int, int]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    events: int = 0
    billed_h: float = 0.0
    used_h: float = 0.0
    lost: int = 0


class World:
    """One rule on one drawn trace. `run` plays it once."""

    def __init__(
        self, drawn: Drawn, rule: Rule, *, start_at: float, first: int = 1, keep_decisions: bool = False
    ) -> None:
        self._drawn, self._rule, self._start_at = drawn, rule, start_at
        self._env = simpy.Environment()
        self._boxes: list[Box] = []
        self._books = Books()
        self._eyes = Eyes()
        self._calls = Calls(drawn, self._eyes)
        self._keep_decisions = keep_decisions
        self._ordered = 0
        for _ in range(first):
            self._join(self._order())

    def run(self) -> Books:
        """Play the day; what is left in the queue at its end counts as having waited until then."""
        self._env.process(self._look())
        self._env.run(until=self._drawn.trace.length_s)
        end = self._env.now
        self._calls.play(end)
        self._calls.close(end)
        self._books.waits, self._books.responses = self._calls.waits, self._calls.responses
        for box in self._boxes:
            lived_s = (end if box.gone_at is None else box.gone_at) - box.ordered_at
            self._books.used_h += lived_s / HOUR_S
            self._books.billed_h += max(1, ceil(lived_s / HOUR_S))
        return self._books

    # ------------------------------------------------------------ machines

    def _order(self) -> Box:
        self._ordered += 1
        box = Box(f"m{self._ordered:03}", self._env.now)
        self._boxes.append(box)
        return box

    def _boot(self, box: Box) -> Any:  # noqa: ANN401 -- a SimPy process
        trace = self._drawn.trace
        boot_s = Random(f"{self._drawn.seed} {box.id}").lognormvariate(log(trace.boot_s), trace.boot_sigma)
        yield self._env.timeout(boot_s)
        if box.state in COMING:
            self._eyes.booted(boot_s)
            self._join(box)

    def _join(self, box: Box) -> None:
        self._calls.play(self._env.now)
        self._open(box)
        if self._drawn.trace.spot_life_s is not None:
            self._env.process(self._be_spot(box, self._drawn.trace.spot_life_s))

    def _open(self, box: Box) -> None:
        box.state = ClaimState.READY
        box.idle_since = self._env.now
        self._calls.open.append(box)

    def _be_spot(self, box: Box, life_s: float) -> Any:  # noqa: ANN401 -- a SimPy process
        random = Random(f"{self._drawn.seed} spot {box.id}")
        left_s = random.expovariate(1.0 / life_s)
        notice_s = 0.0 if random.random() < 0.25 else min(left_s, self._drawn.trace.notice_s)
        yield self._env.timeout(left_s - notice_s)
        box.has_notice = notice_s > 0.0
        yield self._env.timeout(notice_s)
        if box.state is ClaimState.GONE:
            return
        self._calls.play(self._env.now)
        cut = self._calls.cut(box, self._env.now)
        self._end(box)
        self._books.lost += len(cut)
        yield self._env.timeout(LOST_S)
        self._calls.play(self._env.now)
        self._calls.again(cut)

    def _end(self, box: Box) -> None:
        if box in self._calls.open:
            self._calls.open.remove(box)
        box.state, box.gone_at = ClaimState.GONE, self._env.now

    # ------------------------------------------------------------ the loop

    def _look(self) -> Any:  # noqa: ANN401 -- a SimPy process
        while True:
            yield self._env.timeout(TICK_S)
            self._calls.play(self._env.now)
            self._leave()
            decision = self._rule.decide(self._observe())
            if self._keep_decisions:
                self._books.decisions.append(decision)
            if self._carry_out(decision):
                self._books.events += 1
            ready = sum(1 for box in self._boxes if box.state is ClaimState.READY)
            live = sum(1 for box in self._boxes if box.state in LIVE)
            self._books.sizes.append((self._env.now, ready, live))

    def _observe(self) -> Observation:
        now = self._env.now
        there = [box for box in self._boxes if box.state is not ClaimState.GONE]
        ready = sum(1 for box in there if box.state is ClaimState.READY)
        lane, cpu = self._eyes.lane(
            now,
            waiting=self._calls.waiting,
            oldest_wait_s=self._calls.oldest_wait_s(now),
            slots=ready * SLOTS,
            each=SLOTS,
        )
        return Observation(
            "sim",
            self._start_at + now,
            lane,
            tuple(self._seen(box, now) for box in there),
            cpu=cpu,
            memory=0.3,
            boot_p90_s=self._eyes.boot_p90_s(),
            price_eur_h=PRICE_EUR_H,
            billing_s=HOUR_S,
        )

    @staticmethod
    def _seen(box: Box, now: float) -> MachineSeen:
        age_s = now - box.ordered_at
        return MachineSeen(
            box.id,
            box.id,
            box.state,
            has_notice=box.has_notice,
            held=len(box.calls),
            idle_s=0.0 if box.calls else now - box.idle_since,
            age_s=age_s,
            price_eur_h=PRICE_EUR_H,
            paid_left_s=HOUR_S - age_s % HOUR_S,
            told_to_leave=box.told,
        )

    def _carry_out(self, decision: Decision) -> bool:
        """As the actuator does: let go, take back, order."""
        going = {*decision.victims, *decision.cordon}
        for box in self._boxes:
            if box.id in going and box.state in LIVE:
                self._let_go(box)
        short = decision.target - sum(1 for box in self._boxes if box.state in LIVE)
        has_changed = bool(going) or short > 0
        for box in self._boxes:
            if short > 0 and box.state is ClaimState.DRAINING and not box.told and not box.has_notice:
                self._open(box)
                short -= 1
        for _ in range(short):
            self._env.process(self._boot(self._order()))
        self._leave()
        return has_changed

    def _let_go(self, box: Box) -> None:
        if box.state in COMING:
            self._end(box)
        else:
            box.state = ClaimState.DRAINING
            self._calls.open.remove(box)

    def _leave(self) -> None:
        for box in self._boxes:
            if box.state is ClaimState.DRAINING and not box.calls and not box.told:
                box.told = True
                self._env.process(self._part(box))

    def _part(self, box: Box) -> Any:  # noqa: ANN401 -- a SimPy process
        yield self._env.timeout(END_S)
        if box.state is not ClaimState.GONE:
            self._end(box)
