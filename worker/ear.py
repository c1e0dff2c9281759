"""Whether this node's Celery consumer moves at all: something is laid on its hub, and looked for a while later.

A consumer that hangs (in a connect, in a lost thread) takes nothing while the node renews and looks alive. The
node says so itself, and is passed by until the consumer moves again. What it cannot see is a consumer that
moves and listens on a dead socket: the orchestrator sees that, by what the inventories disown. Refuses to
restart anything.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from tasks.clock import Clock
from tasks.health import HEALTHY

GAP_S = 1.0
"""A consumer that is well answers within milliseconds; a machine that is busy may need longer."""
WHY = "its Celery consumer does not move: it has no connection to the broker, or hangs"
_log = structlog.get_logger()

Knock = Callable[[Callable[[], None]], None]
"""Have this called in the consumer's thread, soon."""


class Ear:
    """Judged by hysteresis, like everything else that is checked."""

    def __init__(self, knock: Knock, clock: Clock) -> None:
        self._knock, self._clock = knock, clock
        self._health = HEALTHY
        self._knocked_s: float | None = None
        self._has_answered = False

    def look(self) -> None:
        """Judge the last knock, and knock again. Called with every renewal."""
        now_s = self._clock.mono_s()
        if self._knocked_s is not None:
            if now_s - self._knocked_s < GAP_S:
                return
            before, self._health = self._health, self._health.after(is_good=self._has_answered)
            if before.is_healthy is not self._health.is_healthy:
                _log.warning("consumer_health_changed", is_healthy=self._health.is_healthy)
        self._knocked_s, self._has_answered = now_s, False
        self._knock(self._answered)

    @property
    def trouble(self) -> str | None:
        """Why this node should get nothing now."""
        return None if self._health.is_healthy else WHY

    def _answered(self) -> None:
        """In Celery's thread."""
        self._has_answered = True
