"""How much waits, and since when, by shape: kept up to date by each call that comes and goes.

Owns the counts that sizing the fleet needs, so that nobody walks over a million waiting calls to
learn them. Due times are kept to the second: what waits as long as a second to be counted right does
not matter to machines that take a minute to boot. Refuses to know who could run a shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from orchestrator.dispatch.view import Shape
from orchestrator.ledger.values import Waiting


@dataclass(frozen=True, slots=True)
class Demand:
    """Due calls of one shape that wait and are not held up by an operator.

    Attributes:
        oldest_due: wall clock, to the second, rounded up: they wait at least since then.
        by_second: second at which they became due → how many; not to be changed or kept.
        pools: in which some joined node could run them, paused ones left out.
        up: those of them in which such a node is not lost.
        growing: in which the autoscaler could make such a node, paused ones left out.
    """

    shape: Shape
    calls: int
    oldest_due: float
    by_second: Mapping[int, int]
    pools: tuple[str, ...] = ()
    up: tuple[str, ...] = ()
    growing: tuple[str, ...] = ()


def due_of(call: Waiting) -> float:
    """Wall clock from which on it waits."""
    return call.accepted_at if call.not_before is None else max(call.accepted_at, call.not_before)


class Tally:
    """The due calls of one shape."""

    __slots__ = ("_first", "by_second", "calls")

    def __init__(self) -> None:
        self.calls = 0
        self.by_second: dict[int, int] = {}
        self._first: list[int] = []
        """Heap of the seconds; one that has no call any more stays until it surfaces."""

    def add(self, second: int) -> None:
        """A call became due then."""
        self.calls += 1
        number = self.by_second.get(second, 0)
        self.by_second[second] = number + 1
        if number == 0:
            heappush(self._first, second)

    def discard(self, second: int) -> None:
        """One of that second waits no more."""
        self.calls -= 1
        number = self.by_second[second] - 1
        if number:
            self.by_second[second] = number
        else:
            del self.by_second[second]
            self._compact()

    def oldest(self) -> int | None:
        """The first second that has a call."""
        first = self._first
        while first and first[0] not in self.by_second:
            heappop(first)
        return first[0] if first else None

    def _compact(self) -> None:
        if len(self._first) > 2 * len(self.by_second) + 16:
            self._first = sorted(self.by_second)


class Tallies:
    """Every shape's."""

    def __init__(self) -> None:
        self._due: dict[Shape, Tally] = {}
        self._delayed: Counter[Shape] = Counter()
        self._paused: Counter[Shape] = Counter()

    def add(self, shape: Shape, call: Waiting) -> None:
        """It is due, and may be released."""
        tally = self._due.get(shape)
        if tally is None:
            tally = self._due[shape] = Tally()
        tally.add(int(due_of(call)))

    def discard(self, shape: Shape, call: Waiting) -> None:
        """It is that no more."""
        tally = self._due[shape]
        tally.discard(int(due_of(call)))
        if not tally.calls:
            del self._due[shape]

    def delay(self, shape: Shape, number: int) -> None:
        """So many more wait for their time; less, where negative."""
        _count(self._delayed, shape, number)

    def pause(self, shape: Shape, number: int) -> None:
        """So many more are held up by an operator; less, where negative."""
        _count(self._paused, shape, number)

    def due(self) -> Iterable[tuple[Shape, Tally]]:
        """What could be released if there were room."""
        return self._due.items()

    def all(self) -> Counter[Shape]:
        """Everything that waits, for whatever reason."""
        return Counter({shape: tally.calls for shape, tally in self._due.items()}) + self._delayed + self._paused


def _count(counter: Counter[Shape], shape: Shape, number: int) -> None:
    counter[shape] += number
    if not counter[shape]:
        del counter[shape]
