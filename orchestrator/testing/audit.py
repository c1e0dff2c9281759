"""An audit log in memory: what was told to it, in order."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.audit.checkpoint import signer_at
from orchestrator.audit.log import AuditLog
from orchestrator.ledger.audit_values import AuditFilter, AuditHead, AuditRow, CheckpointRow, Link
from tasks.clock import Clock, SystemClock
from tasks.errors import LedgerDown


class MemoryBook:
    """The ledger's side, in two lists."""

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.signed: list[CheckpointRow] = []
        self.is_down = False

    async def append(self, link: Link) -> list[AuditRow]:
        """Raises LedgerDown where a test says so."""
        if self.is_down:
            raise LedgerDown("the test says so")
        head = AuditHead(self.rows[-1].seq, self.rows[-1].hash) if self.rows else None
        new = list(link(head, 1))
        self.rows += new
        return new

    async def sign(self, signed: CheckpointRow, forget_up_to: int = 0) -> None:
        """Keep it."""
        self.signed.append(signed)
        self.rows = [row for row in self.rows if row.seq > forget_up_to]

    async def listing(self, where: AuditFilter, cursor: str | None, limit: int) -> tuple[list[AuditRow], str | None]:
        """Newest first."""
        found = [row for row in reversed(self.rows) if _fits(row, where) and (cursor is None or row.seq < int(cursor))]
        return found[:limit], str(found[limit - 1].seq) if len(found) > limit else None

    async def oldest(self, where: AuditFilter, cursor: str | None, limit: int) -> tuple[list[AuditRow], str | None]:
        """Oldest first."""
        found = [row for row in self.rows if _fits(row, where) and row.seq > int(cursor or 0)]
        return found[:limit], str(found[limit - 1].seq) if len(found) > limit else None

    async def after(self, seq: int, limit: int) -> list[AuditRow]:
        """Oldest first."""
        return [row for row in self.rows if row.seq > seq][:limit]

    async def checkpoints(self) -> list[CheckpointRow]:
        """All."""
        return list(self.signed)

    async def last_before(self, at_us: int) -> AuditHead | None:
        """The newest that was written before."""
        found = [row for row in self.rows[:-1] if row.at_us < at_us]
        return AuditHead(found[-1].seq, found[-1].hash) if found else None


def memory_audit(book: MemoryBook | None = None, clock: Clock | None = None) -> AuditLog:
    """The real log over a book in memory, with a key of its own."""
    with TemporaryDirectory() as folder:
        signer = signer_at(Path(folder) / "audit.key")
    return AuditLog(books=book or MemoryBook(), signer=signer, clock=clock or SystemClock())


def _fits(row: AuditRow, where: AuditFilter) -> bool:
    equal = all(
        getattr(where, name) in {None, getattr(row, name)} for name in ("tenant", "actor", "target", "decision")
    )
    late = where.since_us is None or row.at_us >= where.since_us
    early = where.until_us is None or row.at_us < where.until_us
    return equal and late and early and row.action.startswith(where.action or "")
