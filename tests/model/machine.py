"""What may happen, in any order, and what must hold after every step."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.testing import new
from orchestrator.settling.verdict import LOSSES_MAX, is_death
from orchestrator.settling.waiting import as_waiting
from orchestrator.testing.protocol import SAFE, UNSAFE
from tasks.errors import Late
from tasks.health import GOOD_IN_A_ROW
from tasks.invocation import OUTSTANDING, TERMINAL, State
from tasks.node import LEASE_TTL_S
from tasks.pool import PoolPolicy
from tasks.retry import RetryPolicy
from tests.model.world import SLOTS, Place, Planted, World
from worker.testing.model_node import Disk

CALLS_MAX = 5
HEALING_ROUNDS = 60
WHERE = st.integers(0, 1)
PATIENT = RetryPolicy(attempts=100, first_wait_s=0.1, cap_s=0.2)


def step(**draws: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule that a search may leave out."""

    def made(function: Callable[..., None]) -> Callable[..., None]:
        def is_used(machine: ProtocolMachine) -> bool:
            steps = machine.planted.steps
            return not steps or function.__name__ in steps

        return cast("Callable[..., None]", precondition(is_used)(rule(**draws)(function)))

    return made


class ProtocolMachine(World, RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    def __init__(self, planted: Planted | None = None) -> None:
        RuleBasedStateMachine.__init__(self)
        World.__init__(self, planted)

    # ------------------------------------------------------------------------------ rules

    @precondition(lambda self: len(self.ledger.rows) < CALLS_MAX)
    @step(which=st.integers(0, 2), is_released=st.booleans())
    def accept(self, which: int, is_released: bool = True) -> None:
        """A call is accepted, and released if there is room; or the leader's turn comes later."""
        tool = self.planted.tools[which % len(self.planted.tools)]
        row = new(invocation_id=f"i{len(self.ledger.rows)}", tool=tool, retry=PATIENT, at=self.clock.wall_s())
        self.run(self.ledger.accept([row]))
        self.leader.core.dispatcher.offer(as_waiting(row.invocation))
        if is_released:
            self.release()

    @step()
    def release(self) -> None:
        """The leader's turn."""
        self.run(self.leader.core.dispatcher.turn())
        self.post(self.leader)

    @step(at=WHERE, which=st.integers(0, 9), how=st.sampled_from(["once", "once", "twice", "never"]))
    def deliver(self, at: int, which: int, how: str) -> None:
        """One message of any age reaches the node, stays to come again, or is lost."""
        place = self.place(at)
        if place.letters:
            letter = place.letters.pop(which % len(place.letters))
            if how == "twice":
                place.letters.append(letter)
            if how != "never" and place.node is not None:
                place.node.deliver(*letter)

    @step()
    def work(self) -> None:
        """What is released comes to its node and starts, as on most days."""
        self.release()
        for place in self.places.values():
            letters, place.letters = place.letters, []
            for letter in letters:
                if place.node is not None:
                    place.node.deliver(*letter)
            self.start_and_count(place)

    @step(at=WHERE)
    def start(self, at: int) -> None:
        """A node starts a call, if it may."""
        self.start_and_count(self.place(at))

    @step(at=WHERE, is_stream_lost=st.booleans())
    def finish(self, at: int, is_stream_lost: bool) -> None:
        """A tool answers; Redis may lose what the node says of it."""
        place = self.place(at)
        if place.node is not None and place.node.running:
            self.answer(place, next(iter(place.node.running)))
            if is_stream_lost:
                place.stream.clear()

    @step(at=WHERE)
    def tell_again(self, at: int) -> None:
        """A node repeats what nobody acknowledged."""
        place = self.place(at)
        if place.node is not None:
            place.stream += place.node.unsettled()

    @step(at=WHERE, is_acknowledged=st.booleans())
    def read(self, at: int, is_acknowledged: bool) -> None:
        """The leader reads a stream; its acknowledgement may be lost."""
        self.settle(self.leader, self.place(at), is_acknowledged=is_acknowledged)

    @step(at=WHERE, is_heard=st.sampled_from([True, True, False]))
    def renew(self, at: int, is_heard: bool) -> None:
        """A whole renewal, but perhaps the reply."""
        flight = self.sent(self.place(at))
        if flight is not None:
            self.arrive(flight)
            if is_heard:
                self.hear(flight)

    @precondition(lambda self: len(self.flights) < 3)
    @step(at=WHERE)
    def send_renewal(self, at: int) -> None:
        """A renewal sets out; it may take any time, and outlive the node's patience."""
        flight = self.sent(self.place(at))
        if flight is not None:
            self.flights.append(flight)

    @precondition(lambda self: self.flights)
    @step(at=st.integers(0, 2))
    def move_renewal(self, at: int) -> None:
        """It arrives at the leader; or its reply, at the node."""
        flight = self.flights[at % len(self.flights)]
        if flight.reply is None:
            self.arrive(flight)
            if flight.reply is None:
                self.flights = [other for other in self.flights if other is not flight]
        else:
            self.flights.remove(flight)
            self.hear(flight)

    @step(seconds=st.sampled_from([1, 3, 8]))
    def pass_time(self, seconds: int) -> None:
        """The leader looks after every second."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.run(self.leader.core.desk.lapse())

    @step()
    def blackout(self) -> None:
        """Every node is silent past its lease and comes back within the grace."""
        self.pass_time(int(LEASE_TTL_S) + 1)
        for _ in range(GOOD_IN_A_ROW):  # then they are used again
            for at in range(len(self.places)):
                self.renew(at, is_heard=True)
        self.pass_time(1)

    @step()
    def silence(self) -> None:
        """Long enough for a lease and a grace."""
        self.run(self.leader.sweep.sweep())
        self.pass_time(int(LEASE_TTL_S) + 11)
        self.run(self.leader.sweep.sweep())

    @step(at=WHERE, is_disk_lost=st.sampled_from([False, False, True]), is_told_twice=st.booleans())
    def restart(self, at: int, is_disk_lost: bool, is_told_twice: bool) -> None:
        """Kill -9 of a node, and its next process."""
        place = self.place(at)
        self.kill(place)
        if is_disk_lost:
            place.disk = Disk()
        self.boot(place, is_told_twice=is_told_twice)

    @step(at=WHERE, which=st.integers(0, 3))
    def join_late(self, at: int, which: int) -> None:
        """A copy of a join that was tried again, or answered long ago, arrives."""
        place = self.place(at)
        if place.node is not None and place.joins:
            with suppress(Late):
                self.run(self.leader.core.desk.join(place.joins[which % len(place.joins)]))

    @step(at=WHERE)
    def die(self, at: int) -> None:
        """Kill -9 of a node; whoever renews or restarts it comes later."""
        self.kill(self.place(at))

    @step()
    def change_leader(self) -> None:
        """Another replica leads. The old one has not noticed: it acts on what reached it while it led."""
        self.zombie = self.leader
        self.zombie.has_read = {place.name: list(place.stream) for place in self.places.values()}
        for flight in self.flights:
            flight.leader = flight.leader or self.zombie
        self.leader = self.elected()

    @precondition(lambda self: self.zombie is not None)
    @step(at=WHERE)
    def act_as_before(self, at: int) -> None:
        """What an old leader may still try: release, and settle what nodes told it."""
        assert self.zombie is not None
        with suppress(EpochLost):
            self.run(self.zombie.core.dispatcher.turn())
        self.post(self.zombie)
        self.settle(self.zombie, self.place(at), is_acknowledged=True)

    # ------------------------------------------------------------------------------ promises

    @invariant()
    def unsafe_work_starts_once(self) -> None:
        """However often it was released."""
        for key, times in self.starts.items():
            tool = self.ledger.rows[key].invocation.call.tool
            assert tool == SAFE or times <= 1, f"{key} was started {times} times"

    @invariant()
    def nodes_are_not_overrun(self) -> None:
        """No more attempts are open on a node than it takes."""
        limit = SLOTS + PoolPolicy("east").prefetch
        rows = [row for row in self.ledger.rows.values() if row.invocation.state in OUTSTANDING]
        held = Counter(row.release.node for row in rows if row.release)
        assert all(number <= limit for number in held.values()), f"more than {limit} attempts are open: {held}"

    @invariant()
    def outcomes_are_true(self) -> None:
        """An end is the current attempt's own, and success was said by its tool."""
        for key, row in self.ledger.rows.items():
            ends = [one for one in row.settled if one.to in TERMINAL]
            assert len(ends) <= 1, f"{key} ended {len(ends)} times"
            for one in row.settled:
                assert one.to is not State.LOST or row.invocation.call.tool == UNSAFE, f"{key} is safe, and lost"
                assert one.to is not State.SUCCEEDED or (key, one.fence) in self.answered
            fences = [one.fence for one in row.settled if one.to is not State.UNREACHABLE]
            assert fences == sorted(set(fences)), f"{key} was settled at fences {fences}"
            assert not ends or ends[0].fence == row.invocation.fence, f"{key} ended by the word of an old attempt"

    def teardown(self) -> None:
        """Once the faults are over everything ends, and what may be repeated ends well."""
        try:
            self.heal()
        finally:
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def heal(self) -> None:
        """Round after round without faults."""
        self.flights.clear()
        for _ in range(HEALING_ROUNDS):
            if all(row.invocation.state in TERMINAL for row in self.ledger.rows.values()):
                break
            for place in self.places.values():
                self.serve(place)
            self.pass_time(1)
            self.run(self.leader.sweep.sweep())
            self.release()
            self.unsafe_work_starts_once()
            self.outcomes_are_true()
        for key, row in self.ledger.rows.items():
            one = row.invocation
            assert one.state in TERMINAL, f"{key} never ends: {one.state}, {row.release}"
            deaths = sum(is_death(attempt.error_code, attempt.started_at) for attempt in one.attempts)
            is_poison = one.state is State.FAILED and (deaths > 1 or len(one.attempts) > LOSSES_MAX)
            if one.call.tool == SAFE and not is_poison:
                assert one.state is State.SUCCEEDED, f"{key} may be repeated, and ended {one.state}"

    def serve(self, place: Place) -> None:
        """One round of a healthy node."""
        if place.node is None:
            self.boot(place)
        for letter in place.letters:
            if place.node is not None:
                place.node.deliver(*letter)
        place.letters.clear()
        self.start_and_count(place)
        for ref in list(place.node.running) if place.node else ():
            self.answer(place, ref)
        if place.node is not None:
            place.stream += place.node.unsettled()
        self.settle(self.leader, place, is_acknowledged=True)
        flight = self.sent(place)
        if flight is not None:
            self.arrive(flight)
            self.hear(flight)
