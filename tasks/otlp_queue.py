"""What waits to be sent to a collector: bounded, sent in order, and every loss counted with its reason.

Owns the bound and the counts. Whoever puts is a call in progress: it is never held up, and nothing is made for it that
can be made later. Refuses to know what it carries, and how that is sent.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from tasks.otlp_http import Answer

log = structlog.get_logger("mcpfleet.telemetry")
MAKE_AT = 128
"""So many are made at once, hundreds of ms before they are sent. As bytes they cost no more than memory; what they are
made of are dozens of objects each, which the garbage collector looks through again and again."""
BATCH_MAX = 2048
"""Entries of one request."""
BATCH_BYTES = 1_000_000
"""Of one request, about; collectors refuse what is larger than a few MB."""
FULL, UNMADE, ENDING = "full", "unmade", "ending"
"""Why entries were lost here: they did not fit, could not be made, or the process ended first."""

Make = Callable[[], Iterable[bytes]]
Send = Callable[[Sequence[bytes], int], Answer]


class Bounded:
    """Put by any thread, made and sent by one. The newest are refused when it is full."""

    def __init__(self, send: Send, *, most: int, wake: Callable[[], None] = lambda: None) -> None:
        """`most` is the weight that may wait; `wake` is told when some are worth making."""
        self._send, self._most, self._wake = send, most, wake
        self._waiting: deque[tuple[Make, int, int]] = deque()
        """What makes them, how many, what it weighs."""
        self._made: deque[tuple[bytes, int]] = deque()
        """Each entry, and what it weighs."""
        self._weight = 0
        self._sending = 0
        self._lock = threading.RLock()  # a finalizer that logs may put while this thread is in here
        self._lost: Counter[str] = Counter()
        self._known = set[type[Exception]]()
        self.sent = 0
        self.detail = ""
        """Of the newest loss, for people."""

    @property
    def dropped(self) -> int:
        """No collector got them."""
        return sum(self.lost.values())

    @property
    def lost(self) -> Mapping[str, int]:
        """The same, by why."""
        with self._lock:
            return dict(self._lost)

    @property
    def is_half_full(self) -> bool:
        """It should be sent before its time."""
        return self._weight > self._most / 2

    def put(self, make: Make, count: int = 1, weight: int = 1) -> None:
        """`make` answers `count` entries, in the thread that sends. Until they are sent they weigh `weight`."""
        with self._lock:
            if self._weight + weight > self._most and self._weight:
                self._lost[FULL] += count
                return
            self._weight += weight
            self._waiting.append((make, count, weight))
        if len(self._waiting) % MAKE_AT == 0:
            self._wake()

    def drop(self, count: int, why: str, detail: str = "") -> None:
        """So many are lost."""
        with self._lock:
            self._lost[why] += count
            self.detail = detail

    def make(self) -> None:
        """Make all that waits: what it was made of is free then."""
        while self._waiting:
            make, count, weight = self._waiting.popleft()
            try:
                entries = list(make())
            except Exception as error:  # what others gave to make: the rest of them are sent
                if type(error) not in self._known:  # else a line of each call
                    self._known.add(type(error))
                    log.exception("telemetry_unmade")
                self.drop(count, UNMADE, type(error).__name__)
                entries = []
            if not entries:
                self._lighten(weight)
            for entry in entries:  # all of the weight goes with the first of them
                self._made.append((entry, weight))
                weight = 0

    def flush(self, is_ending: Callable[[], bool] = lambda: False) -> None:
        """Send all that waits; a batch that is not taken is lost, not tried for ever."""
        self.make()
        while self._made:
            batch = self._batch()
            self._sending = count = len(batch)
            lost, why, detail = self._send(batch, count)
            self._sending = 0
            self.sent += count - lost
            if lost:
                self.drop(lost, why, detail)
            if lost == count and is_ending():
                return
            self.make()

    def abandon(self) -> None:
        """The process ends: what waits, or is on its way, is lost."""
        left = sum(count for _, count, _ in list(self._waiting)) + len(self._made) + self._sending
        self._waiting.clear()
        self._made.clear()
        if left:
            self.drop(left, ENDING)

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = weight = 0
        while self._made and len(batch) < BATCH_MAX and size < BATCH_BYTES:
            entry, share = self._made.popleft()
            batch.append(entry)
            size, weight = size + len(entry), weight + share
        self._lighten(weight)
        return batch

    def _lighten(self, weight: int) -> None:
        with self._lock:
            self._weight -= weight
