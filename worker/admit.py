"""Whether a delivery may run here: authenticated, addressed to us, of the current term, and new.

Owns what this incarnation remembers of deliveries. A delivery is bound to one incarnation by its key,
so memory is enough: a new process has a new key, under which nothing old opens. It is bounded, and
nothing is forgotten: a delivery carries a number that grows, and when the oldest one remembered makes
room, everything up to its number is refused from then on, remembered or not. Numbers may come in any
order within what is remembered; one that is refused though it never came is disowned and sent again.
Late-bound deliveries wait in the pool's queue for any time, so their number says nothing: the
orchestrator refuses the claim of an old one. Refuses to judge the lease: that is checked again when a
slot is free.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from tasks.envelope import Delivery, Number, Opened, open_sealed
from tasks.errors import BadDelivery
from tasks.sealing import Opener

SEEN_MAX = 65_536
"""Fences remembered, newest kept (about 15 MB at the most): a minute at 1,000 calls a second. What is older is
refused by its number."""

Ref = tuple[str, int]
"""(invocation, fence)"""


_Noted = tuple[int, Number | None]
"""(fence, number of its delivery)"""
_NEVER: _Noted = (-1, None)


class Way(Enum):
    """What to do with a delivery that is ours."""

    QUEUE = "queue"
    CLAIM = "claim"
    """Late binding: any node of the pool got it, the orchestrator says whose it is."""
    EARLY = "early"
    """Of a term we have not been told yet: its renewal's reply is still on the way."""


class Admission:
    """The judge of one incarnation."""

    def __init__(
        self, *, node: str, incarnation: str, key: bytes, pool_key: bytes, term: int, seen_max: int = SEEN_MAX
    ) -> None:
        self.term = term
        self._seen_max = seen_max
        self._node = node
        self._incarnation = incarnation
        self._key = key
        self._pool_key = pool_key
        self._seen: dict[str, _Noted] = {}
        self._void: dict[str, _Noted] = {}
        self._mark: Number | None = None
        """Every addressed delivery up to this number was here, or will never be started."""
        self._cancelled: dict[Ref, None] = {}
        self.sealed: Callable[[], Opener | None] = lambda: None
        """Opens what is sealed; replaced where the fleet told this node its keys."""

    def open(self, body: str, mac: str) -> Opened:
        """Authenticate with the key of its kind only: ours where it is addressed, the pool's where not.

        The pool's key is shared, so it must not speak for one node.

        Raises:
            BadDelivery: `mac`, `version`, `form`; `unsealed` where sealing is demanded; what `Opener.open` raises.
        """
        sealed = self.sealed()
        if sealed is not None and sealed.is_sealed(mac):
            return sealed.open(body, mac)
        if sealed is not None and sealed.is_demanded:
            raise BadDelivery("unsealed")
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
                the same Invocation, was here already), `number` (older than what is remembered).
        """
        if delivery.fence <= self._void.get(delivery.invocation, _NEVER)[0]:
            raise BadDelivery("void")
        if delivery.fence <= self._seen.get(delivery.invocation, _NEVER)[0]:
            raise BadDelivery("fence")
        if delivery.node is None:
            return Way.CLAIM
        if delivery.node != self._node:
            raise BadDelivery("node")
        if delivery.incarnation != self._incarnation:
            raise BadDelivery("incarnation")
        if delivery.term < self.term:
            raise BadDelivery("term")
        if self._mark is not None and delivery.number is not None and delivery.number <= self._mark:
            raise BadDelivery("number")
        return Way.QUEUE if delivery.term == self.term else Way.EARLY

    def remember_delivery(self, delivery: Delivery) -> None:
        """From now on this fence is refused. A late-bound one that is put back is not remembered."""
        number = None if delivery.node is None else delivery.number
        self._keep(self._seen, delivery.invocation, (delivery.fence, number))

    def remember(self, invocation: str, fence: int) -> None:
        """The same for what an earlier process had: its number says nothing here."""
        self._keep(self._seen, invocation, (fence, None))

    def void(self, invocation: str, fence: int, *, newest: Number | None = None) -> None:
        """The orchestrator said: never start it. Its number is `newest` or an older one."""
        known = self._void.get(invocation, _NEVER)[0]
        self._keep(self._void, invocation, (max(fence, known), newest))

    def cancel(self, ref: Ref) -> None:
        """A cancel that overtook its delivery; one for what was here already is ignored."""
        if self._seen.get(ref[0], _NEVER)[0] < ref[1]:
            self._cancelled[ref] = None
            if len(self._cancelled) > self._seen_max:
                del self._cancelled[next(iter(self._cancelled))]

    def take_cancel(self, ref: Ref) -> bool:
        """Whether a cancel waits for this delivery."""
        if not self._cancelled or ref not in self._cancelled:
            return False
        del self._cancelled[ref]
        return True

    def _keep(self, noted: dict[str, _Noted], invocation: str, note: _Noted) -> None:
        noted.pop(invocation, None)
        noted[invocation] = note
        if len(noted) > self._seen_max:
            _, number = noted.pop(next(iter(noted)))
            if number is not None and (self._mark is None or number > self._mark):
                self._mark = number
