"""Refusals in the audit log, so that a flood of them cannot fill the disk.

Pure, on a passed-in clock. In each window the first refusal of somebody is a row at once, the rest are counted and
written as one row when the window ends; past so many different somebodies, all others share one row. So a window
costs at most 2 · SOMEBODIES + 1 rows, whatever is sent and from wherever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.ledger.audit_values import AuditEntry, Detail

WINDOW_S = 60.0
SOMEBODIES = 16
"""Who has rows of its own in a window: 33 rows a minute at the most, 20 MB a day of an endless flood."""
OTHERS = "others"


@dataclass(slots=True)
class _Count:
    first: AuditEntry
    more: int = 0


class Refusals:
    """The counts of the window that runs."""

    def __init__(self, window_s: float = WINDOW_S, somebodies: int = SOMEBODIES) -> None:
        self._window_s, self._somebodies = window_s, somebodies
        self._counts: dict[tuple[str, str, str], _Count] = {}
        self._began_s: float | None = None
        self._others: _Count | None = None

    def add(self, entry: AuditEntry, now_s: float) -> bool:
        """Whether this one is to be written now. The others are counted.

        Args:
            entry: what was refused; told apart by peer, actor and action.
            now_s: on a clock that only goes forward.
        """
        if self._began_s is None:
            self._began_s = now_s
        key = (entry.peer, entry.actor, entry.action)
        known = self._counts.get(key)
        if known is not None:
            known.more += 1
            return False
        if len(self._counts) < self._somebodies:
            self._counts[key] = _Count(entry)
            return True
        if self._others is None:
            self._others = _Count(replace(entry, peer=OTHERS, actor=OTHERS, credential="", target=""))
        self._others.more += 1
        return False

    def due(self, now_s: float, *, is_last: bool = False) -> list[AuditEntry]:
        """What the window that is over counted; nothing while it runs, unless this is the end of all."""
        if self._began_s is None or (now_s - self._began_s < self._window_s and not is_last):
            return []
        counts = [*self._counts.values(), *([] if self._others is None else [self._others])]
        elapsed_s = round(now_s - self._began_s)
        self._counts, self._others, self._began_s = {}, None, None
        return [_summed(one, elapsed_s) for one in counts if one.more]


def _summed(one: _Count, elapsed_s: int) -> AuditEntry:
    details: dict[str, Detail] = {**one.first.details, "count": one.more, "seconds": elapsed_s}
    who = one.first.peer or one.first.actor
    reason = f"{one.more} more refused from {who} in {elapsed_s} s; the first: {one.first.reason}"
    return replace(one.first, reason=reason, trace_id="", details=details)
