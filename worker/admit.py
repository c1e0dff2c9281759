"""Whether a delivery may run here: authenticated, addressed to us, of the current term, and new.

Owns what this incarnation remembers of deliveries. A delivery is bound to one incarnation by its key,
so memory is enough: a new process has a new key, under which nothing old opens. Refuses to judge the
lease: that is checked again when a slot is free.
"""

from __future__ import annotations

from enum import Enum

from tasks.envelope import Delivery, Opened, open_sealed
from tasks.errors import BadDelivery

SEEN_MAX = 65_536
"""Fences remembered, newest kept (about 13 MB at the most): a minute at 1,000 calls a second. Whatever the
broker brings twice it brings within seconds (kombu puts prefetched messages back when it closes)."""

Ref = tuple[str, int]
"""(invocation, fence)"""


class Way(Enum):
    """What to do with a delivery that is ours."""

    QUEUE = "queue"
    CLAIM = "claim"
    """Late binding: any node of the pool got it, the orchestrator says whose it is."""
    EARLY = "early"
    """Of a term we have not been told yet: its renewal's reply is still on the way."""


class Admission:
    """The judge of one incarnation."""

    def __init__(self, *, node: str, incarnation: str, key: bytes, pool_key: bytes, term: int) -> None:
        self.term = term
        self._node = node
        self._incarnation = incarnation
        self._key = key
        self._pool_key = pool_key
        self._seen: dict[str, int] = {}
        self._void: dict[str, int] = {}
        self._cancelled: dict[Ref, None] = {}

    def open(self, body: str, mac: str) -> Opened:
        """Authenticate with the key of its kind only: ours where it is addressed, the pool's where not.

        The pool's key is shared, so it must not speak for one node.

        Raises:
            BadDelivery: `mac`, `version`, `form`.
        """
        try:
            opened, is_addressed = open_sealed(body, mac, self._key), True
        except BadDelivery as refused:
            if refused.why != "mac":
                raise
            opened, is_addressed = open_sealed(body, mac, self._pool_key), False
        if (opened.delivery.node is not None) is not is_addressed:
            raise BadDelivery("mac")
        return opened

    def judge(self, delivery: Delivery) -> Way:
        """What to do with it.

        Raises:
            BadDelivery: `node`, `incarnation`, `term`, `void`, `fence` (this fence, or a later one of
                the same Invocation, was here already).
        """
        if delivery.fence <= self._void.get(delivery.invocation, -1):
            raise BadDelivery("void")
        if delivery.fence <= self._seen.get(delivery.invocation, -1):
            raise BadDelivery("fence")
        if delivery.node is None:
            return Way.CLAIM
        if delivery.node != self._node:
            raise BadDelivery("node")
        if delivery.incarnation != self._incarnation:
            raise BadDelivery("incarnation")
        if delivery.term < self.term:
            raise BadDelivery("term")
        return Way.QUEUE if delivery.term == self.term else Way.EARLY

    def remember(self, invocation: str, fence: int) -> None:
        """From now on this fence is refused. A late-bound one that is put back is not remembered."""
        _keep(self._seen, invocation, fence)

    def void(self, invocation: str, fence: int) -> None:
        """The orchestrator said: never start it."""
        _keep(self._void, invocation, max(fence, self._void.get(invocation, -1)))

    def cancel(self, ref: Ref) -> None:
        """A cancel that overtook its delivery; one for what was here already is ignored."""
        if self._seen.get(ref[0], -1) < ref[1]:
            self._cancelled[ref] = None
            if len(self._cancelled) > SEEN_MAX:
                del self._cancelled[next(iter(self._cancelled))]

    def take_cancel(self, ref: Ref) -> bool:
        """Whether a cancel waits for this delivery."""
        if not self._cancelled or ref not in self._cancelled:
            return False
        del self._cancelled[ref]
        return True


def _keep(fences: dict[str, int], invocation: str, fence: int) -> None:
    fences.pop(invocation, None)
    fences[invocation] = fence
    if len(fences) > SEEN_MAX:
        del fences[next(iter(fences))]
