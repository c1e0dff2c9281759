"""Rows of those who showed good credentials, so that one of them cannot fill the disk.

Pure, on a passed-in clock. In each window somebody's acts of one kind are a row each, up to a limit that no person
and no fleet of a hundred joining nodes reaches; the last of these rows says that what follows is counted, and one
row at the end of the window says how many followed. Other kinds of act go on having rows: a flood hides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.ledger.audit_values import AuditEntry, Detail

WINDOW_S = 60.0
ROWS = 300
"""Of one principal and kind in a window: about 220 MB a day of an endless flood, until somebody looks."""
COUNTED = "counted_from_here"
Kind = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Count:
    rows: int = 0
    more: int = 0
    last_row: int = 0
    first: AuditEntry | None = None


class Acts:
    """The counts of the window that runs."""

    def __init__(self, window_s: float = WINDOW_S, rows: int = ROWS) -> None:
        self._window_s, self._rows = window_s, rows
        self._counts: dict[Kind, _Count] = {}
        self._began_s: float | None = None

    def row(self, entry: AuditEntry, now_s: float) -> AuditEntry | None:
        """The row to write now, or None: it is counted.

        Args:
            entry: what is about to be done; told apart by tenant, actor, credential, action and decision.
            now_s: on a clock that only goes forward.
        """
        if self._began_s is None:
            self._began_s = now_s
        count = self._counts.setdefault(_kind(entry), _Count())
        if count.rows < self._rows:
            count.rows += 1
            is_last = count.rows == self._rows
            return replace(entry, details={**entry.details, COUNTED: True}) if is_last else entry
        count.first = count.first or entry
        count.more += 1
        return None

    def wrote(self, entry: AuditEntry, seq: int) -> None:
        """It is row `seq`."""
        if count := self._counts.get(_kind(entry)):
            count.last_row = max(count.last_row, seq)

    def unwritten(self, entry: AuditEntry) -> None:
        """It could not be written, so it is not done, and takes nobody's room."""
        if count := self._counts.get(_kind(entry)):
            count.rows -= 1

    def last_row(self, entry: AuditEntry) -> int:
        """The newest row of this kind: what a counted one refers to."""
        count = self._counts.get(_kind(entry))
        return 0 if count is None else count.last_row

    def due(self, now_s: float, *, is_last: bool = False) -> list[AuditEntry]:
        """What the window that is over counted; nothing while it runs, unless this is the end of all."""
        if self._began_s is None or (now_s - self._began_s < self._window_s and not is_last):
            return []
        elapsed_s = round(now_s - self._began_s)
        counts = list(self._counts.values())
        self._counts, self._began_s = {}, None
        return [_summed(one.first, one.more, elapsed_s) for one in counts if one.first is not None]


def _kind(entry: AuditEntry) -> Kind:
    return entry.tenant, entry.actor, entry.credential, entry.action, entry.decision


def _summed(first: AuditEntry, more: int, elapsed_s: int) -> AuditEntry:
    details: dict[str, Detail] = {"count": more, "seconds": elapsed_s}
    reason = f"{more} more of these by {first.actor} in {elapsed_s} s"
    return replace(first, target="", reason=reason, trace_id="", details=details)
