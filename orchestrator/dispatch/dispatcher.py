"""The leader's loop that releases: fair order, late placement, compare-and-set, then send.

Runs on one event loop, so its state needs no locks. The ledger's answer decides what was released;
what it refused goes back. Refuses to judge ends (orchestrator/settling) and to publish (`send.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.dispatch.affinity import Affinity, Bound
from orchestrator.dispatch.backlog import Backlog
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.dispatch.records import Address, attempt_of, release_of, released_happening
from orchestrator.dispatch.route import Decision, route
from orchestrator.dispatch.spread import Spread
from orchestrator.dispatch.tally import Demand, Tally
from orchestrator.dispatch.view import FleetView, Shape
from orchestrator.happenings import Ended, Happening
from orchestrator.ledger.guest import Guest
from orchestrator.ledger.values import Outstanding, Release, Released, Waiting
from tasks.clock import Clock
from tasks.envelope import Number
from tasks.errors import LedgerDown
from tasks.invocation import State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.placement import Placement, Refusal
from tasks.tool import UNDECLARED, Declared
from tasks.wire import BacklogView

log = structlog.get_logger("mcpfleet.dispatch")
BATCH_MAX = 500
"""Releases of one commit. More would let a long batch delay the next call's release."""
IDLE_S = 1.0
COUNTED_EACH_TIME = 10_000
"""Waiting calls: of fewer, `backlog` is counted for each who asks; 4 ms."""
REUSED_S_PER_CALL = 50e-6
"""Of more, for so long: counting is 0.4 µs a call, so it takes no more than a hundredth of the loop."""
LEDGER_RETRY_S = 0.5
BROKER_RETRY_S = 0.2


class Books(Protocol):
    """The ledger, as dispatch needs it."""

    async def release(self, wanted: Sequence[Release], epoch: int) -> list[Released | None]: ...
    async def expire(self, ids: Sequence[str], at: float) -> list[str]: ...
    async def set_paused(self, kind: str, name: str, is_paused: bool) -> None: ...
    async def bind_affinity(self, bindings: Sequence[tuple[str, str, float]]) -> None: ...


class Outbox(Protocol):
    """Seals and sends one release."""

    @property
    def down_because(self) -> str | None: ...
    def address(self, node: str) -> Address | None: ...
    def post(self, attempt: Outstanding, released: Released, queue: str, number: Number) -> None: ...


class Dispatcher:
    """Satisfies the doors' and the settler's dispatch ports."""

    def __init__(
        self,
        *,
        books: Books,
        outbox: Outbox,
        attempts: OpenAttempts,
        affinity: Affinity,
        build_view: Callable[[frozenset[tuple[str, str]]], FleetView],
        clock: Clock,
        tell: Callable[[Happening], None],
        doubt: Callable[[str], None],
        placed: Callable[[str, str], None],
        declared: Callable[[str], Declared | None],
        guest_of: Callable[[Waiting], Guest | None] = lambda _: None,
    ) -> None:
        self._guest_of = guest_of
        self._doubt, self._placed, self._declared = doubt, placed, declared
        self._books, self._outbox, self._attempts, self._affinity = books, outbox, attempts, affinity
        self._build_view, self._clock, self._tell = build_view, clock, tell
        self._paused: set[tuple[str, str]] = set()
        self._fleet = build_view(frozenset())
        self._backlog = Backlog(self._fleet)
        self._spread = Spread()
        self._wake = asyncio.Event()
        self._is_stale = False
        self._posted = 0
        self._counted: tuple[float, float, dict[str, int]] | None = None
        self.epoch: int | None = None

    def recall(self, *, paused: Iterable[tuple[str, str]], bound: Iterable[Bound]) -> None:
        """What the ledger remembers; a new leader begins with it."""
        self._paused = set(paused)
        self._affinity.recall(bound)
        self.fleet_changed()

    def offer(self, waiting: Waiting) -> None:
        """A call waits: new, or tried again. Only a leader keeps it: to lead begins with reading all."""
        if self.epoch is None:
            return
        guest = self._guest_of(waiting)
        self._backlog.add(waiting if guest is None else replace(waiting, guest=guest), self._clock.wall_s())
        self._wake.set()

    def withdraw(self, invocation_id: str) -> None:
        """A waiting call was cancelled."""
        self._backlog.remove(invocation_id)

    def credit_returned(self, attempt: Outstanding) -> None:
        """An attempt was settled: its node may have room."""
        if attempt.node is not None:
            self._backlog.credit(attempt.node, attempt.lane)
        for seat in self._late_mates(attempt):
            self._backlog.credit(seat, attempt.lane)
        self._wake.set()

    def fleet_changed(self) -> None:
        """Nodes, tools or states changed; the view is built anew before the next pass."""
        self._is_stale = True
        self._wake.set()

    def loads_changed(self, loads: dict[str, tuple[float, float]]) -> None:
        """Nodes reported cpu and memory."""
        self._fleet = self._fleet.reloaded(loads)

    def claimed(self, project: str | None, node: str) -> None:
        """A node claimed a late-bound call: its project is warm there."""
        self._bind(project, node)

    def newest(self) -> Number | None:
        """At least the number of everything that was sent; None where this process does not lead."""
        return None if self.epoch is None else (self.epoch, self._posted)

    def knows(self, invocation_id: str) -> bool:
        """It waits or is outstanding here, so its end will be told here."""
        return invocation_id in self._backlog or invocation_id in self._attempts

    def why(self, invocation_id: str) -> tuple[str, ...]:
        """Why a waiting call waits, asked anew; empty for one that does not wait."""
        call = self._backlog.get(invocation_id)
        if call is None:
            return ()
        now_wall_s = self._clock.wall_s()
        if call.not_before is not None and call.not_before > now_wall_s:
            return (
                f"starts in {call.not_before - now_wall_s:.1f} s: it was delayed, or backs off before its next try",
            )
        down = self._outbox.down_because
        if down is not None:
            return (f"the broker does not answer ({down}); nothing is released until it does",)
        decision = self._decide(call)
        if isinstance(decision, Placement):
            return ("is next in its project's turn", *decision.reasons)
        return decision.reasons

    def backlog(self) -> BacklogView:
        """What waits, for people. By project, and since when, of a long backlog as it was up to some seconds ago."""
        now_s, waiting = self._clock.wall_s(), len(self._backlog)
        reused_s = waiting * REUSED_S_PER_CALL if waiting >= COUNTED_EACH_TIME else 0.0
        if self._counted is None or now_s - self._counted[0] >= reused_s:
            calls = list(self._backlog.calls())
            oldest = min((call.accepted_at for call in calls), default=now_s)
            self._counted = now_s, oldest, dict(Counter(call.project or "-" for call in calls))
        return BacklogView(
            waiting=waiting,
            delayed=self._backlog.delayed,
            outstanding=len(self._attempts),
            oldest_wait_s=max(0.0, now_s - self._counted[1]),
            by_project=self._counted[2],
            paused_projects=sorted(name for kind, name in self._paused if kind == "project"),
        )

    def broker_down(self) -> str | None:
        """Why nothing can be sent; None where it can."""
        return self._outbox.down_because

    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._backlog)

    def waiting_in_pool(self, pool: str) -> int:
        """Waiting calls that this pool could run, with a node that it has or that could be made; O(shapes)."""
        waiting = self._backlog.tallies.all()
        return sum(calls for shape, calls in waiting.items() if pool in self._pools_for(shape))

    def demand(self) -> list[Demand]:
        """What waits for room, by shape, with the pools that could give it; O(shapes)."""
        return [self._demand(shape, tally) for shape, tally in self._backlog.tallies.due()]

    def _demand(self, shape: Shape, tally: Tally) -> Demand:
        oldest = tally.oldest()
        assert oldest is not None, "a tally without a call is dropped"
        is_paused = self._fleet.is_pool_paused
        pools = self._fleet.pools_of(shape)
        return Demand(
            shape,
            tally.calls,
            oldest + 1.0,
            tally.by_second,
            pools=tuple(pool for pool in pools if not is_paused(pool)),
            up=tuple(pool for pool, is_up in pools.items() if is_up and not is_paused(pool)),
            growing=tuple(pool for pool in self._fleet.growing(shape) if not is_paused(pool)),
        )

    def _pools_for(self, shape: Shape) -> tuple[str, ...]:
        return (*self._fleet.pools_of(shape), *self._fleet.growing(shape))

    def paused(self) -> frozenset[tuple[str, str]]:
        """(kind, name) of everything paused."""
        return frozenset(self._paused)

    def projects_of(self, node: str) -> list[str]:
        """Projects bound to a node."""
        return self._affinity.projects_of(node, self._clock.wall_s())

    async def pause(self, kind: str, name: str, is_paused: bool) -> None:
        """Pause or resume a queue, pool or project; durable first."""
        await self._books.set_paused(kind, name, is_paused)
        if is_paused:
            self._paused.add((kind, name))
        else:
            self._paused.discard((kind, name))
        self.fleet_changed()

    async def save_affinity(self) -> None:
        """Write bindings that moved. Called about once a second."""
        self._affinity.sweep(self._clock.wall_s())
        rows = self._affinity.dirty()
        if not rows:
            return
        try:
            await self._books.bind_affinity(rows)
        except LedgerDown:
            self._affinity.unsaved(rows)
            raise

    async def run(self) -> None:
        """Until cancelled. Each turn releases at most `BATCH_MAX` calls in one commit."""
        while True:
            self._wake.clear()
            try:
                is_busy = await self.turn()
                pause_s = 0.0 if is_busy else self._pause_s()
            except LedgerDown as error:
                log.warning("ledger_unavailable", error=error.message)
                pause_s = LEDGER_RETRY_S
                self._wake.clear()
            except Exception:
                log.exception("dispatch_turn_failed")
                pause_s = LEDGER_RETRY_S
                self._wake.clear()
            if pause_s > 0:
                await self._rest(pause_s)

    async def turn(self) -> bool:
        """One pass; True if there may be more to do at once."""
        now_wall_s = self._clock.wall_s()
        self._refresh()
        self._backlog.due(now_wall_s)
        await self._expire(now_wall_s)
        if self.epoch is None or self._outbox.down_because is not None:
            return False
        chosen = self._choose()
        if chosen:
            await self._release(chosen, self.epoch)
        return len(chosen) == BATCH_MAX

    def _pause_s(self) -> float:
        if self._outbox.down_because is not None:
            return BROKER_RETRY_S
        due_s = self._backlog.wait_s(self._clock.mono_s(), self._clock.wall_s())
        return IDLE_S if due_s is None else min(IDLE_S, max(due_s, 0.001))

    async def _rest(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _refresh(self) -> None:
        if self._is_stale:
            self._is_stale = False
            self._fleet = self._build_view(frozenset(self._paused))
            self._backlog.fleet_changed(self._fleet)

    def _decide(self, call: Waiting) -> Decision:
        since = max(call.accepted_at, call.not_before or 0.0)
        now_wall_s = self._clock.wall_s()
        return route(
            call,
            self._fleet,
            self._attempts,
            warm_node=self._affinity.node_of(call.project, now_wall_s),
            waited_s=max(0.0, now_wall_s - since),
            spread=self._spread,
            now_s=self._clock.mono_s(),
        )

    def _choose(self) -> list[tuple[Waiting, Outstanding, Placement]]:
        chosen: list[tuple[Waiting, Outstanding, Placement]] = []
        while len(chosen) < BATCH_MAX and not self._is_stale:
            call = self._backlog.next(self._clock.mono_s())
            if call is None:
                break
            decision = self._decide(call)
            attempt = self._attempt(call, decision) if isinstance(decision, Placement) else None
            if attempt is None:
                self._backlog.park(call.id, decision if not isinstance(decision, Placement) else _GONE)
                continue
            assert isinstance(decision, Placement)
            self._backlog.take(call.id)
            self._attempts.add(attempt)
            self._spread.placed(decision, self._fleet)
            if decision.node is not None:
                self._bind(call.project, decision.node)
                self._placed(decision.node, call.tool)
            chosen.append((call, attempt, decision))
        return chosen

    def _attempt(self, call: Waiting, placement: Placement) -> Outstanding | None:
        address = Address("", 0) if placement.node is None else self._outbox.address(placement.node)
        if address is None:
            self.fleet_changed()
            return None
        declared = self._declared(call.tool) or UNDECLARED
        return attempt_of(call, placement, address, declared, self._clock.wall_s())

    async def _release(self, chosen: Sequence[tuple[Waiting, Outstanding, Placement]], epoch: int) -> None:
        wanted = [release_of(attempt, placement) for _call, attempt, placement in chosen]
        try:
            answers = await self._books.release(wanted, epoch)
        except BaseException:
            for call, attempt, _placement in chosen:
                self._attempts.remove(attempt.invocation_id, attempt.fence)
                self._backlog.add(call, self._clock.wall_s())
                self.credit_returned(attempt)  # the pass that failed may have parked everything else
            raise
        for (call, attempt, placement), released in zip(chosen, answers, strict=True):
            if released is None:
                self._refused(attempt)
                continue
            self._posted += 1
            self._outbox.post(attempt, released, placement.queue, (epoch, self._posted))
            self._tell(released_happening(call, attempt, placement))

    def _refused(self, attempt: Outstanding) -> None:
        """Cancelled meanwhile; or released by a commit whose answer was lost. The ledger is asked again."""
        log.info("release_refused", invocation=attempt.invocation_id, fence=attempt.fence)
        self._attempts.remove(attempt.invocation_id, attempt.fence)
        self.credit_returned(attempt)
        self._doubt(attempt.invocation_id)

    async def _expire(self, now_wall_s: float) -> None:
        late = self._backlog.expired(now_wall_s)
        if not late:
            return
        try:
            took = set(await self._books.expire([call.id for call in late], now_wall_s))
        except LedgerDown:
            for call in late:
                self._backlog.add(call, now_wall_s)
            raise
        error = ErrorInfo("deadline_passed", "the deadline passed before a node had room", Failure.PERMANENT)
        for call in late:
            if call.id not in took:
                self._doubt(call.id)
            else:
                outcome = Outcome("expired", error=error)
                self._tell(Ended(call.id, State.EXPIRED, now_wall_s, call.tool, outcome, "deadline"))

    def _bind(self, project: str | None, node: str) -> None:
        if project is None or node not in self._fleet.seats:
            return
        ttl_s = self._fleet.policy(self._fleet.seats[node].pool).affinity_ttl_s
        self._affinity.placed(project, node, now_wall_s=self._clock.wall_s(), ttl_s=ttl_s, fleet=self._fleet)

    def _late_mates(self, attempt: Outstanding) -> Iterable[str]:
        if self._fleet.policy(attempt.pool).strategy != "late":
            return ()
        return [name for name, seat in self._fleet.seats.items() if seat.pool == attempt.pool and name != attempt.node]


_GONE = Refusal(("the chosen node left a moment ago",))
