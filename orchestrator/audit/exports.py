"""Copying the audit log to where it was asked to go, as it grows; each place from where it stopped.

At least once: a row may arrive again after a lost answer or a change of leaders, never be left out. A place that
does not answer is behind, said in the log, and holds up neither the others nor any act.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from orchestrator.audit.formats import writer
from orchestrator.audit.sinks import Target
from orchestrator.ledger.audit_values import AuditRow

PAGE = 200
log = structlog.get_logger("mcpfleet.audit")


class Books(Protocol):
    """The ledger's side."""

    async def after(self, seq: int, limit: int) -> list[AuditRow]: ...
    async def exported(self, target: str) -> int: ...
    async def set_exported(self, target: str, seq: int) -> None: ...


class Exports:
    """All places."""

    def __init__(self, *, books: Books, targets: Sequence[Target], host: str) -> None:
        self._books, self._targets = books, targets
        self._writers = {target.name: writer(target.form, host) for target in targets}
        self._at: dict[str, int] = {}

    async def look(self) -> None:
        """Send what is new.

        Raises:
            LedgerDown, EpochLost
        """
        await asyncio.gather(*(self._bring(target) for target in self._targets))

    async def _bring(self, target: Target) -> None:
        if target.name not in self._at:
            self._at[target.name] = await self._books.exported(target.name)
        while rows := await self._books.after(self._at[target.name], PAGE):
            lines = list(map(self._writers[target.name], rows))
            try:
                await asyncio.to_thread(target.sink.send, lines)
            except OSError as error:
                log.warning("audit_export_behind", target=target.name, from_row=rows[0].seq, error=str(error))
                return
            await self._books.set_exported(target.name, rows[-1].seq)
            self._at[target.name] = rows[-1].seq
