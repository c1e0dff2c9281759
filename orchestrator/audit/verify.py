"""Is the log what was written? Every row, the chain between them, and what was signed about it.

Pure: rows and checkpoints in, findings out. Refuses to trust a checkpoint by itself: it counts only with a
signature by one of the keys given. What it cannot see: rows after the last checkpoint that was kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.audit.chain import hash_of
from orchestrator.audit.checkpoint import Checkpoint, Keys, checked
from orchestrator.ledger.audit_values import AuditRow, CheckpointRow

FINDINGS_MAX = 100
"""Past it only the number is kept: a broken log can be wrong in every row."""
RESTORE = "keep this database as evidence; compare with an export or a backup from before"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: at which row, what, and what to do."""

    seq: int
    text: str
    do: str = RESTORE


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found."""

    rows: int = 0
    first: int = 0
    last: int = 0
    last_hash: str = ""
    chain: str = ""
    signed_up_to: int = 0
    """The newest row that a checkpoint with a good signature agrees with."""
    checkpoints: int = 0
    """With a good signature."""
    findings: list[Finding] = field(default_factory=list)
    unnamed: int = 0
    """Findings beyond those listed."""

    @property
    def is_sound(self) -> bool:
        """Nothing is wrong with what could be looked at."""
        return not self.findings

    def add(self, seq: int, text: str, do: str = RESTORE) -> None:
        """One more."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(seq, text, do))
        else:
            self.unnamed += 1


def verify(rows: Iterable[AuditRow], own: Sequence[CheckpointRow], kept: Sequence[CheckpointRow], keys: Keys) -> Report:
    """Look at the whole log, once, in order.

    Args:
        rows: by their number, ascending.
        own: the checkpoints beside them.
        kept: checkpoints that were kept elsewhere.
        keys: of the orchestrators whose signature counts.
    """
    look = Look(own, kept, keys)
    look.see(rows)
    return look.end()


def _good(own: Sequence[CheckpointRow], kept: Sequence[CheckpointRow], keys: Keys, report: Report) -> list[Checkpoint]:
    found = []
    for where, rows in (("of the log", own), ("kept elsewhere", kept)):
        for row in rows:
            said = checked(row, keys)
            if isinstance(said, Checkpoint):
                found.append(said)
            else:
                report.add(
                    row.seq,
                    f"the checkpoint {where} at row {row.seq} counts for nothing: {said}",
                    "was the key renewed? give its earlier public keys too; if not, somebody else signed it",
                )
    report.checkpoints = len(found)
    return sorted(found, key=lambda one: one.seq)


class Look:
    """One pass over the log, in portions: `see` each in order, then `end`. Arguments as `verify`."""

    def __init__(self, own: Sequence[CheckpointRow], kept: Sequence[CheckpointRow], keys: Keys) -> None:
        self._report = Report()
        self._good = good = _good(own, kept, keys, self._report)
        self._at: dict[int, list[Checkpoint]] = {}
        for one in good:
            self._at.setdefault(one.seq, []).append(one)
        self._before: AuditRow | None = None

    def see(self, rows: Iterable[AuditRow]) -> None:
        """The next rows."""
        report = self._report
        for row in rows:
            self._follows(row)
            if hash_of(row) != row.hash:
                report.add(row.seq, f"row {row.seq} was edited: its fields do not have its hash")
            self._signed(row)
            report.rows += 1
            self._before = row

    def end(self) -> Report:
        """There are no more."""
        report = self._report
        report.last = 0 if self._before is None else self._before.seq
        report.last_hash = "" if self._before is None else self._before.hash
        self._complete()
        return report

    def _follows(self, row: AuditRow) -> None:
        before, report = self._before, self._report
        if before is None:
            self._begins(row)
        elif row.seq <= before.seq:
            report.add(row.seq, f"row {row.seq} comes after row {before.seq}: the rows were put in another order")
        elif row.seq > before.seq + 1:
            report.add(
                row.seq, f"{_rows(before.seq + 1, row.seq - 1)} removed: row {before.seq} is followed by {row.seq}"
            )
        elif row.prev != before.hash:
            report.add(
                row.seq,
                f"row {row.seq} does not follow row {before.seq}: that was replaced, or rows were put in another order",
            )

    def _begins(self, row: AuditRow) -> None:
        """The first row there is: of the log, or after what a checkpoint seals."""
        report = self._report
        report.first = row.seq
        if row.seq == 1:
            report.chain = row.prev
        else:
            seals = [one for one in self._good if (one.sealed, one.sealed_hash) == (row.seq - 1, row.prev)]
            report.chain = seals[0].chain if seals else ""
            if not seals:
                report.add(row.seq, f"{_rows(1, row.seq - 1)} removed, and no checkpoint says that they may be")
        for one in self._good:
            if report.chain and one.chain != report.chain:
                report.add(
                    one.seq,
                    f"the checkpoint at row {one.seq} is of another log ({one.chain[:12]}…, not {report.chain[:12]}…)",
                    "either it is another fleet's, or this log was begun anew: ask for the log that it names",
                )

    def _signed(self, row: AuditRow) -> None:
        report = self._report
        for one in self._at.get(row.seq, ()):
            if one.hash == row.hash:
                report.signed_up_to = row.seq
            else:
                report.add(
                    row.seq,
                    f"the log was rewritten: row {row.seq} is not what was signed at {one.at_us / 1e6:.0f}; changed is "
                    f"something in rows {report.signed_up_to + 1} to {row.seq}",
                )

    def _complete(self) -> None:
        report = self._report
        missing = [one.seq for one in self._good if one.seq > report.last]
        if missing:
            report.add(
                report.last, f"{_rows(report.last + 1, max(missing))} cut off the end: a checkpoint was signed there"
            )


def _rows(first: int, last: int) -> str:
    return f"row {first} was" if first == last else f"rows {first} to {last} were"
