"""The audit log as the rest of the orchestrator sees it: told once, durable before the act goes on.

Owns when a row, a count of refusals, a checkpoint and a seal are written. Only the leader writes (the ledger's
epoch guard). Refuses to decide anything: doors and desks do.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from orchestrator.audit.acts import Acts
from orchestrator.audit.chain import link
from orchestrator.audit.checking import Checking
from orchestrator.audit.checkpoint import Checkpoint, Signer, line_of, public_keys, stated
from orchestrator.audit.refusals import Refusals
from orchestrator.audit.verify import Look, Report
from orchestrator.ledger.audit_values import (
    AuditEntry,
    AuditFilter,
    AuditHead,
    AuditRow,
    CheckpointRow,
    Decision,
    Detail,
    Link,
)
from tasks.clock import Clock
from tasks.errors import FleetError

CHECKPOINT_ROWS = 100
CHECKPOINT_S = 300.0
CHECKED_AT_ONCE = 500
"""Rows that a check reads and hashes in one go: 15 ms of threads, then as long a rest. Threads share the interpreter
with the event loop."""
DAY_US = 86_400_000_000
OWN = "orchestrator"
"""Actor of what the orchestrator notes of itself."""
log = structlog.get_logger("mcpfleet.audit")


class Books(Protocol):
    """The ledger's side."""

    async def append(self, link: Link) -> list[AuditRow]: ...
    async def sign(self, signed: CheckpointRow, forget_up_to: int = 0) -> None: ...
    async def after(self, seq: int, limit: int) -> list[AuditRow]: ...
    async def listing(
        self, where: AuditFilter, cursor: str | None, limit: int
    ) -> tuple[list[AuditRow], str | None]: ...
    async def oldest(self, where: AuditFilter, cursor: str | None, limit: int) -> tuple[list[AuditRow], str | None]: ...
    async def checkpoints(self) -> list[CheckpointRow]: ...
    async def last_before(self, at_us: int) -> AuditHead | None: ...


class AuditLog:
    """One per orchestrator."""

    def __init__(
        self,
        *,
        books: Books,
        signer: Signer,
        clock: Clock,
        keep: Callable[[str], None] = lambda _line: None,
        checkpoint_rows: int = CHECKPOINT_ROWS,
        checkpoint_s: float = CHECKPOINT_S,
        retention_days: float = 0.0,
    ) -> None:
        """Wire it.

        Args:
            books: where rows are.
            signer: the orchestrator's key.
            clock: wall for rows, monotonic for windows.
            keep: takes each checkpoint's line, off this database.
            checkpoint_rows: a checkpoint after so many rows,
            checkpoint_s: or so many seconds after the last, if there is a new row.
            retention_days: rows older than this are sealed and removed; 0: never.
        """
        self.signer = signer
        self.in_force: dict[str, Detail] = {}
        """What else the row of a new leader names: keys that are not the ledger's."""
        self.listing, self.oldest, self.checkpoints = books.listing, books.oldest, books.checkpoints
        self._books, self._clock, self._keep = books, clock, keep
        self._checkpoint_rows, self._checkpoint_s = checkpoint_rows, checkpoint_s
        self._retention_us = round(retention_days * DAY_US)
        self._refusals, self._acts = Refusals(), Acts()
        self.checks = Checking(self.check, clock)
        self._chain: str | None = None
        self._sealed: tuple[int, str] | None = None
        self._head: AuditHead | None = None
        self._signed_seq, self._signed_at_s = 0, clock.mono_s()

    async def begin(self, epoch: int) -> None:
        """This orchestrator leads: say so, and how the log was found.

        Raises:
            LedgerDown, EpochLost: it does not lead, then.
        """
        signed = await self._books.checkpoints()
        newest = stated(signed[-1]) if signed else None
        if newest is not None:
            self._signed_seq = newest.seq
            self._chain, self._sealed = newest.chain, (newest.sealed, newest.sealed_hash)
            found = await self._books.after(newest.seq - 1, 1)
            if not found or (found[0].seq, found[0].hash) != (newest.seq, newest.hash):
                log.error("audit_log_altered", row=newest.seq, do="run `mcpfleet audit verify`; docs/audit.md says on")
        details: dict[str, Detail] = {"epoch": epoch, "key": self.signer.key_id, **self.in_force}
        await self.write(AuditEntry("orchestrator.lead", Decision.NOTED, OWN, details=details))

    async def write(self, *entries: AuditEntry) -> int:
        """Durable when it returns; the number of the first row.

        Raises:
            LedgerDown: nothing was written, so what was to be audited must not be done.
            EpochLost: another orchestrator leads.
        """
        at_us, chain = round(self._clock.wall_s() * 1e6), secrets.token_hex(32)

        def linked(head: AuditHead | None, epoch: int) -> Sequence[AuditRow]:
            return link(entries, head, epoch=epoch, at_us=at_us, new_chain=chain)

        rows = await self._books.append(linked)
        if rows[0].seq == 1:
            self._chain = rows[0].prev
        self._head = AuditHead(rows[-1].seq, rows[-1].hash)
        return rows[0].seq

    async def acted(self, entry: AuditEntry) -> int:
        """Somebody with good credentials is about to act: a row, or one of those that are counted.

        Returns:
            The number of its row; of a counted one, that of the row since which its kind is counted.

        Raises:
            LedgerDown, EpochLost: it must not be done.
        """
        row = self._acts.row(entry, self._clock.mono_s())
        if row is None:
            return self._acts.last_row(entry)
        try:
            seq = await self.write(row)
        except FleetError:
            self._acts.unwritten(entry)
            raise
        self._acts.wrote(entry, seq)
        return seq

    async def refused(self, entry: AuditEntry) -> None:
        """Somebody was refused: written now, or counted. Never raises: the refusal stands either way."""
        if self._refusals.add(entry, self._clock.mono_s()):
            await self._tolerant(entry)

    async def look(self) -> None:
        """Write what is due. Called every few seconds by the leader.

        Raises:
            LedgerDown, EpochLost
        """
        now_s = self._clock.mono_s()
        if counted := [*self._refusals.due(now_s), *self._acts.due(now_s)]:
            await self.write(*counted)
        await self._forget()
        if self._head is None or self._head.seq == self._signed_seq:
            self._signed_at_s = now_s
        elif (
            self._head.seq - self._signed_seq >= self._checkpoint_rows
            or now_s - self._signed_at_s >= self._checkpoint_s
        ):
            await self.checkpoint()

    async def checkpoint(self) -> CheckpointRow | None:
        """Sign the newest row now, and keep the checkpoint elsewhere too; None: there is no row.

        Raises:
            LedgerDown, EpochLost
        """
        if self._head is None:
            return None
        return await self._sign(self._head, await self._seal())

    async def check(self, saw: Callable[[int], None] = lambda _rows: None) -> Report:
        """Look at every row, the chain, and what this orchestrator's key signed: `verify`, beside the loop.

        Half of the time it rests: an audit may take twice as long, calls may not. `saw` hears how far it is.

        Raises:
            LedgerDown
        """
        look = Look(await self._books.checkpoints(), (), public_keys(self.signer.public_pem()))
        seq, count = 0, 0
        while True:
            begun_s = self._clock.mono_s()
            rows = await self._books.after(seq, CHECKED_AT_ONCE)
            if not rows:
                return await asyncio.to_thread(look.end)
            await asyncio.to_thread(look.see, rows)
            seq, count = rows[-1].seq, count + len(rows)
            saw(count)
            await asyncio.sleep(self._clock.mono_s() - begun_s)

    def public_key(self) -> tuple[str, str]:
        """The key's name, and the key in PEM."""
        return self.signer.key_id, self.signer.public_pem()

    async def close(self) -> None:
        """An orderly stop: what was counted, and a last checkpoint. Never raises: another may lead already."""
        try:
            if self._head is not None:
                stop = AuditEntry("orchestrator.stop", Decision.NOTED, OWN)
                now_s = self._clock.mono_s()
                counted = [*self._refusals.due(now_s, is_last=True), *self._acts.due(now_s, is_last=True)]
                await self.write(*counted, stop)
                await self.checkpoint()
        except FleetError as error:
            log.info("audit_not_closed", error=error.message)

    async def _sign(self, head: AuditHead, sealed: tuple[int, str], forget_up_to: int = 0) -> CheckpointRow:
        stated = Checkpoint(
            chain=await self._name(),
            seq=head.seq,
            hash=head.hash,
            sealed=sealed[0],
            sealed_hash=sealed[1],
            at_us=round(self._clock.wall_s() * 1e6),
            key=self.signer.key_id,
        )
        signed = self.signer.sign(stated)
        await self._books.sign(signed, forget_up_to)
        self._signed_seq, self._signed_at_s, self._sealed = head.seq, self._clock.mono_s(), sealed
        try:
            self._keep(line_of(signed))
        except OSError:
            log.exception("audit_checkpoint_not_kept", row=head.seq, do="see MCPFLEET_AUDIT_CHECKPOINTS")
        return signed

    async def _forget(self) -> None:
        """Seal what is past its days, then remove it: the row that says so comes first."""
        if not self._retention_us or self._head is None:
            return
        last = await self._books.last_before(round(self._clock.wall_s() * 1e6) - self._retention_us)
        if last is None or last.seq <= (await self._seal())[0]:
            return
        reason = f"rows up to {last.seq} are past their days (MCPFLEET_AUDIT_RETENTION_DAYS) and were removed"
        await self.write(AuditEntry("audit.seal", Decision.NOTED, OWN, target=str(last.seq), reason=reason))
        await self._sign(self._head, (last.seq, last.hash), forget_up_to=last.seq)

    async def _name(self) -> str:
        if self._chain is None:
            self._chain = (await self._books.after(0, 1))[0].prev
        return self._chain

    async def _seal(self) -> tuple[int, str]:
        if self._sealed is None:
            self._sealed = (0, await self._name())
        return self._sealed

    async def _tolerant(self, *entries: AuditEntry) -> None:
        try:
            await self.write(*entries)
        except FleetError as error:
            log.warning("audit_row_not_written", action=entries[0].action, peer=entries[0].peer, error=error.message)
