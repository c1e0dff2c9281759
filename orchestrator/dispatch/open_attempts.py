"""The attempts that were released and not settled: the one place credit is derived from.

Derived, never counted: `held` is the size of a set, filled from the ledger at start and changed
only by a release or a settlement that took. Refuses to decide anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchestrator.ledger.values import Outstanding
from tasks.invocation import Lane, State

Ref = tuple[str, int]


class OpenAttempts:
    """Satisfies `view.Occupancy`. One attempt per Invocation: a newer fence replaces the older."""

    def __init__(self, attempts: Iterable[Outstanding] = ()) -> None:
        self._by_id: dict[str, Outstanding] = {}
        self._by_node: defaultdict[str, set[str]] = defaultdict(set)
        self._seats: defaultdict[tuple[str, Lane], set[str]] = defaultdict(set)
        self._sizes: dict[Lane, dict[str, int]] = {lane: {} for lane in Lane}
        self._unclaimed: defaultdict[tuple[str, Lane], set[str]] = defaultdict(set)
        for attempt in attempts:
            self.add(attempt)

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, invocation_id: object) -> bool:
        return invocation_id in self._by_id

    def held(self, node: str, lane: Lane) -> int:
        """Unsettled attempts of this lane on this node."""
        seat = self._seats.get((node, lane))
        return len(seat) if seat else 0

    def held_by_node(self, lane: Lane) -> Mapping[str, int]:
        """The same for every node that ever held one; one look-up per node where `route` compares 100."""
        return self._sizes[lane]

    def held_in_pool(self, pool: str, lane: Lane) -> int:
        """Unsettled late-bound attempts that no node has claimed."""
        seat = self._unclaimed.get((pool, lane))
        return len(seat) if seat else 0

    def add(self, attempt: Outstanding) -> None:
        """A release took."""
        self.remove(attempt.invocation_id)
        self._by_id[attempt.invocation_id] = attempt
        if attempt.node is None:
            self._unclaimed[attempt.pool, attempt.lane].add(attempt.invocation_id)
        else:
            self._by_node[attempt.node].add(attempt.invocation_id)
            self._seats[attempt.node, attempt.lane].add(attempt.invocation_id)
            self._measure(attempt.node, attempt.lane)

    def remove(self, invocation_id: str, fence: int | None = None) -> Outstanding | None:
        """A settlement took. With `fence`, only that attempt; None if it was not held."""
        attempt = self._by_id.get(invocation_id)
        if attempt is None or (fence is not None and attempt.fence != fence):
            return None
        del self._by_id[invocation_id]
        if attempt.node is None:
            self._unclaimed[attempt.pool, attempt.lane].discard(invocation_id)
        else:
            self._by_node[attempt.node].discard(invocation_id)
            self._seats[attempt.node, attempt.lane].discard(invocation_id)
            self._measure(attempt.node, attempt.lane)
        return attempt

    def get(self, invocation_id: str) -> Outstanding | None:
        """The open attempt of an Invocation."""
        return self._by_id.get(invocation_id)

    def current(self, invocation_id: str, fence: int) -> Outstanding | None:
        """The open attempt with this fence; None for an old one."""
        attempt = self._by_id.get(invocation_id)
        return attempt if attempt is not None and attempt.fence == fence else None

    def is_at(self, invocation_id: str, fence: int, node: str) -> bool:
        """Whether the open attempt with this fence is that node's."""
        attempt = self.current(invocation_id, fence)
        return attempt is not None and attempt.node == node

    def of_node(self, node: str) -> list[Outstanding]:
        """Everything released to a node and not settled."""
        return [self._by_id[key] for key in self._by_node.get(node, ())]

    def all(self) -> list[Outstanding]:
        """Every open attempt."""
        return list(self._by_id.values())

    def cancel_requested(self, invocation_id: str, fence: int) -> None:
        """Somebody wants it stopped: every renewal of its node repeats that, until it ended."""
        attempt = self.current(invocation_id, fence)
        if attempt is not None:
            self._by_id[invocation_id] = replace(attempt, cancel_requested=True)

    def claimed(self, invocation_id: str, fence: int, node: str, incarnation: str, term: int) -> None:
        """A node claimed a late-bound attempt."""
        attempt = self.current(invocation_id, fence)
        if attempt is not None:
            self.add(replace(attempt, node=node, incarnation=incarnation, term=term))

    def parked(self, invocation_id: str, fence: int, is_parked: bool) -> None:
        """It waits for a person and its slot is others' meanwhile, or it goes on and takes one again."""
        attempt = self.current(invocation_id, fence)
        if attempt is None or attempt.node is None:
            return
        seat = self._seats[attempt.node, attempt.lane]
        if is_parked:
            seat.discard(invocation_id)
        else:
            seat.add(invocation_id)
        self._measure(attempt.node, attempt.lane)

    def to_state(self, invocation_id: str, fence: int, state: State, started_at: float | None = None) -> bool:
        """Note running or unreachable; False for an attempt that is not open, or already so."""
        attempt = self.current(invocation_id, fence)
        if attempt is None or attempt.state is state:
            return False
        self._by_id[invocation_id] = replace(attempt, state=state, started_at=started_at or attempt.started_at)
        return True

    def forget(self, node: str) -> None:
        """The node is gone. While something of it is open, its places are kept."""
        if self._by_node.get(node):
            return
        self._by_node.pop(node, None)
        for lane in Lane:
            self._seats.pop((node, lane), None)
            self._sizes[lane].pop(node, None)

    def _measure(self, node: str, lane: Lane) -> None:
        self._sizes[lane][node] = len(self._seats[node, lane])
