"""Calls under way, as others see them: announced when they last, their progress at most ten times a second.

One timer for all calls, none for the short ones' sake. Refuses to stop anything.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tasks.clock import Clock
from tasks.invocation import Lane
from tasks.ledger_events import Progress, Saved, Started
from worker.work import Stop, Work

ANNOUNCE_AFTER_S = 0.25
"""A call that has not ended by then is reported as started; a shorter one only as finished."""
SPENT_GAP_S = 5.0
"""Per call: what it spent goes ahead of its outcome as often. Of a node that dies, no more is ever known."""
PROGRESS_GAP_S = 0.1
"""Per call: progress is for people, ten times a second is live."""
TICK_S = 0.1
LINES_MAX_CHARS = 8000
"""Of what an agent said between two messages: the end of it."""


class Teller(Protocol):
    """Where events go."""

    def tell(self, event: Started | Progress | Saved) -> None:
        """Send once."""
        ...


class Watch:
    """The calls of one node that are inside a tool."""

    def __init__(self, teller: Teller, clock: Clock) -> None:
        self._teller = teller
        self._clock = clock
        self._calling: set[Work] = set()
        self._ticker: asyncio.TimerHandle | None = None

    def began(self, work: Work) -> None:
        """The tool is being called."""
        self._calling.add(work)
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def ended(self, work: Work) -> None:
        """The tool has answered; its last progress goes out before its outcome."""
        self._calling.discard(work)
        if work.progress is not None:
            self._send_progress(work, self._clock.mono_s())
        if work.stop is Stop.VOID:  # nobody wants its outcome; its bill is due all the same
            self._send_spent(work, self._clock.mono_s())

    def progress(self, work: Work, progress: float, total: float | None, message: str | None) -> None:
        """The tool said how far it is. The newest wins while one has to wait; of an agent, each line is kept."""
        if work not in self._calling:
            return
        if message is not None:
            message = message.encode("utf-8", "replace").decode()  # half a character is no text that can be sent
        if work.delivery.lane is Lane.AGENTS and work.progress is not None and work.progress.message and message:
            message = f"{work.progress.message}\n{message}"[-LINES_MAX_CHARS:]
        work.progress = Progress(*work.ref, progress, total, message)
        now_s = self._clock.mono_s()
        if now_s - work.progress_sent_s >= PROGRESS_GAP_S:
            self._send_progress(work, now_s)

    def saved(self, work: Work, number: int, blob: str) -> None:
        """The session of a call is in the blob store. Nobody wants to hear it of one that was told to stop."""
        if work in self._calling:
            self._announce(work)
            work.saved = (number, blob)
            self._teller.tell(Saved(*work.ref, number, blob))

    def _send_progress(self, work: Work, now_s: float) -> None:
        assert work.progress is not None
        self._announce(work)
        self._teller.tell(work.progress)
        work.progress, work.progress_sent_s = None, now_s

    def _send_spent(self, work: Work, now_s: float) -> None:
        if work.spent is not work.spent_told:
            self._announce(work)
            self._teller.tell(Progress(*work.ref, 0.0, spent=work.spent))
            work.spent_told, work.spent_told_s = work.spent, now_s

    def _announce(self, work: Work) -> None:
        if not work.is_announced and work.started_at is not None:
            work.is_announced = True
            self._teller.tell(Started(*work.ref, work.started_at))

    def _tick(self) -> None:
        self._ticker = None
        now_s = self._clock.mono_s()
        for work in self._calling:
            if now_s - work.started_s >= ANNOUNCE_AFTER_S:
                self._announce(work)
            if work.progress is not None and now_s - work.progress_sent_s >= PROGRESS_GAP_S:
                self._send_progress(work, now_s)
            if work.spent is not work.spent_told and now_s - work.spent_told_s >= SPENT_GAP_S:
                self._send_spent(work, now_s)
        if self._calling:
            self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
