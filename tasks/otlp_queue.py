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
BATCH_MAX = 512
"""Entries of one request, about: one that makes several is not split."""
BATCH_BYTES = 1_000_000
"""Of one request, about; collectors refuse what is larger than a few MB."""
FULL, UNMADE, ENDING = "full", "unmade", "ending"
"""Why entries were lost here: they did not fit, could not be made, or the process ended first."""

Make = Callable[[], Iterable[bytes]]
Send = Callable[[Sequence[bytes], int], Answer]


class Bounded:
    """Put by any thread, flushed by one. The newest are refused when it is full."""

    def __init__(self, send: Send, *, most: int, wake: Callable[[], None] = lambda: None) -> None:
        """`most` is the weight that may wait; `wake` is told once half of it does."""
        self._send, self._most, self._wake = send, most, wake
        self._waiting: deque[tuple[Make, int, int]] = deque()
        """What makes them, how many, what it weighs."""
        self._weight = self._sending = 0
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

    def put(self, make: Make, count: int = 1, weight: int = 1) -> None:
        """`make` answers `count` entries, in the thread that sends. It keeps `weight` alive until then."""
        with self._lock:
            if self._weight + weight > self._most and self._waiting:
                self._lost[FULL] += count
                return
            was_calm = self._weight <= self._most // 2
            self._weight += weight
            self._waiting.append((make, count, weight))
            is_calm = self._weight <= self._most // 2
        if was_calm and not is_calm:
            self._wake()

    def drop(self, count: int, why: str, detail: str = "") -> None:
        """So many are lost."""
        with self._lock:
            self._lost[why] += count
            self.detail = detail

    def flush(self, is_ending: Callable[[], bool] = lambda: False) -> None:
        """Send all that waits; a batch that is not taken is lost, not tried for ever."""
        while self._waiting:
            batch = self._batch()
            if not batch:
                continue
            self._sending = count = len(batch)
            lost, why, detail = self._send(batch, count)
            self._sending = 0
            self.sent += count - lost
            if lost:
                self.drop(lost, why, detail)
            if lost == count and is_ending():
                return

    def abandon(self) -> None:
        """The process ends: what waits, or is on its way, is lost."""
        with self._lock:
            left = sum(count for _, count, _ in self._waiting) + self._sending
            self._waiting.clear()
        if left:
            self.drop(left, ENDING)

    def _batch(self) -> list[bytes]:
        made: list[bytes] = []
        size = 0
        while len(made) < BATCH_MAX and size < BATCH_BYTES:
            with self._lock:
                if not self._waiting:
                    break
                make, count, weight = self._waiting.popleft()
                self._weight -= weight
            try:
                entries = list(make())
            except Exception as error:  # what others gave to make: the rest of them are sent
                if type(error) not in self._known:  # else a line of each call
                    self._known.add(type(error))
                    log.exception("telemetry_unmade")
                self.drop(count, UNMADE, type(error).__name__)
                continue
            made += entries
            size += sum(map(len, entries))
        return made
