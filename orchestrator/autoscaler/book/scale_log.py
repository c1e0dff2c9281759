"""What is kept of rounds, for `explain` and `replay`: each decision with the Observation that it was made of.

Owns which rounds are kept, and for how long. One whose outcome changed is written before anything is done about
it; one that says the same in other words, once a minute; one that says the same, every five minutes. The rest is
dropped: a fleet of five pools would fill gigabytes a week with it. Figures: docs/autoscaling.md.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from orchestrator.autoscaler.book.wire import dumps_short
from orchestrator.autoscaler.values import Decision, Observation
from orchestrator.ledger.values import ScaleLogRow
from tasks.clock import Clock

log = structlog.get_logger("mcpfleet.autoscaler")
ROUND_S = 5.0
"""Of the loop."""
SAME_EVERY_S, OTHER_WORDS_EVERY_S = 300.0, 60.0
KEPT_S = 7 * 86_400.0


class ScaleBooks(Protocol):
    """The ledger's log of decisions."""

    async def log_scale(self, row: ScaleLogRow) -> None: ...
    async def forget_scale_log(self, before: float) -> int: ...


class ScaleLog:
    """Of one leader."""

    def __init__(self, *, books: ScaleBooks, clock: Clock) -> None:
        self._books, self._clock = books, clock
        self._last: dict[str, tuple[Decision, float]] = {}

    async def note(self, decision: Decision, seen: Observation) -> None:
        """Written down if it is kept.

        Raises:
            LedgerDown, EpochLost: it was not, and nothing may be done about it.
        """
        before, at_s = self._last.get(decision.pool, (None, 0.0))
        now_s = self._clock.mono_s()
        if before is not None and now_s - at_s < _pause_s(before, decision):
            return
        row = ScaleLogRow(decision.pool, decision.at, dumps_short(seen), dumps_short(decision))
        await self._books.log_scale(row)
        self._last[decision.pool] = (decision, now_s)
        if before is None or before.target != decision.target:
            why = decision.reasons[-1].text if decision.reasons else ""
            log.info("scale_decided", pool=decision.pool, before=decision.before, target=decision.target, why=why)

    async def forget(self) -> int:
        """Drop what is older than a week; how many rows.

        Raises:
            LedgerDown: all are kept.
        """
        return await self._books.forget_scale_log(self._clock.wall_s() - KEPT_S)


def _pause_s(before: Decision, decision: Decision) -> float:
    if _outcome(before) != _outcome(decision):
        return 0.0
    return SAME_EVERY_S if _rules(before) == _rules(decision) else OTHER_WORDS_EVERY_S


def _outcome(decision: Decision) -> tuple[object, ...]:
    """What is done about it, or would be."""
    return (decision.before, decision.target, decision.victims, decision.cordon, decision.is_dry)


def _rules(decision: Decision) -> tuple[str, ...]:
    """Their words carry numbers that differ each time."""
    return tuple(reason.rule for reason in decision.reasons)
