"""How long a pool orders nothing because its machines do not come up. Pure.

Read from the claims, so that a new leader does not begin to order at once what the old one gave up.
A machine that became ready forgives all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.autoscaler.act.ladder import rounds_of
from orchestrator.autoscaler.values import NodeClaim

BOOT_TIMEOUT = "boot_timeout"
STOPPED = "machine_stopped"
VANISHED = "machine_vanished"
PROVISIONING_FAILED = "provisioning_failed"
BOOT_FAILURES = frozenset({BOOT_TIMEOUT, STOPPED, VANISHED, PROVISIONING_FAILED})
"""Of a machine that was made, and of which no node came."""
PAUSE_S = 30.0
PAUSE_MAX_S = 3600.0
ALERT_AFTER = 3
"""Machines in a row that failed."""


@dataclass(frozen=True, slots=True)
class BootPause:
    """Machines of a pool fail.

    Attributes:
        failures: machines in a row.
        rounds: times in a row that ordering was tried.
        until: wall clock; nothing is ordered before.
        error: of the last.
    """

    failures: int
    rounds: int
    until: float
    error: str

    def may_order(self, now: float) -> int | None:
        """How many machines may be on the way now; None: any number."""
        if now < self.until:
            return 0
        return 1 if self.rounds > 1 else None  # one shows whether it is mended; ten would cost ten times as much


def boot_pause(claims: Sequence[NodeClaim]) -> BootPause | None:
    """Of one pool's claims; None where the last machine came up.

    Source: 30 s after the first round, twice as long after each that follows, an hour at the most.
    """
    came_up_at = max((claim.ready_at for claim in claims if claim.ready_at is not None), default=0.0)
    failed = [c for c in claims if _is_failed_boot(c) and (c.failed_at or 0.0) > came_up_at]
    if not failed:
        return None
    last = max(failed, key=lambda claim: claim.failed_at or 0.0)
    rounds = rounds_of(failed)
    pause_s = min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(rounds - 1, 20))
    return BootPause(len(failed), rounds, (last.failed_at or 0.0) + pause_s, last.error)


def _is_failed_boot(claim: NodeClaim) -> bool:
    """One that served and vanished later booted well."""
    return claim.ready_at is None and claim.failed_with in BOOT_FAILURES
