"""The audit log's two tables: rows are appended, never changed; checkpoints beside them.

Every write goes through the ledger's one writer, behind the epoch guard: a leader that was superseded writes
nothing here either. Refuses to hash and to sign: `orchestrator/audit` does, and hands over how (`Link`).
Triggers of migration m0010 refuse updates, and deletions of what no checkpoint seals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Connection, bindparam, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from orchestrator.ledger.audit_values import AuditFilter, AuditHead, AuditRow, CheckpointRow, Link
from orchestrator.ledger.fleet_rows import current_epoch
from orchestrator.ledger.readers import Readers
from orchestrator.ledger.reads import page, seq_of
from orchestrator.ledger.tables import AUDIT, AUDIT_CHECKPOINTS, AUDIT_EXPORTS
from orchestrator.ledger.transaction import Hot, Tx

_A, _C, _X = AUDIT.c, AUDIT_CHECKPOINTS.c, AUDIT_EXPORTS.c
_NAMES = tuple(field.name for field in fields(AuditRow))
_ALL = select(*(_A[name] for name in _NAMES))
_HEAD = Hot(select(_A.seq, _A.hash).where(_A.seq == select(func.max(_A.seq)).scalar_subquery()))
_APPEND = Hot(insert(AUDIT).inline(), _NAMES)
_SIGN = Hot(
    upsert(AUDIT_CHECKPOINTS).on_conflict_do_nothing(index_elements=["seq", "sealed"]).inline(),
    ("seq", "sealed", "body_json", "signature"),
)
_FORGET = Hot(delete(AUDIT).where(_A.seq <= bindparam("p_seq", type_=BigInteger)))
_exported = upsert(AUDIT_EXPORTS)
_EXPORTED = Hot(
    _exported.on_conflict_do_update(index_elements=["target"], set_={"seq": _exported.excluded.seq}).inline(),
    ("target", "seq"),
)

T = TypeVar("T")
Write = Callable[[Callable[[Tx], T]], Awaitable[T]]


def append(tx: Tx, link: Link) -> list[AuditRow]:
    """Write what `link` makes of the newest row; the rows."""
    found = tx.all(_HEAD, {})
    rows = list(link(AuditHead(*found[0]) if found else None, current_epoch(tx)))
    tx.put(_APPEND, [asdict(row) for row in rows])
    return rows


def sign(tx: Tx, signed: CheckpointRow, forget_up_to: int) -> None:
    """Keep a checkpoint, then remove the rows it seals; the trigger lets no others go."""
    tx.put(_SIGN, [asdict(signed)])
    if forget_up_to:
        tx.put(_FORGET, [{"p_seq": forget_up_to}])


def ascending(connection: Connection, after: int, limit: int, where: AuditFilter | None = None) -> list[AuditRow]:
    """A page in the order of writing, after that number."""
    query = _ALL.where(_A.seq > after, *_conditions(where or AuditFilter())).order_by(_A.seq).limit(limit)
    return [AuditRow(*row) for row in connection.execute(query)]


def checkpoints(connection: Connection) -> list[CheckpointRow]:
    """All of them, in order."""
    query = select(_C.seq, _C.sealed, _C.body_json, _C.signature).order_by(_C.seq, _C.sealed)
    return [CheckpointRow(**row) for row in connection.execute(query).mappings()]


class AuditBook:
    """The ledger's side of the audit log."""

    def __init__(self, write: Callable[[Callable[[Tx], Any]], Awaitable[Any]], readers: Readers) -> None:
        self._write, self._readers = write, readers

    async def append(self, link: Link) -> list[AuditRow]:
        """Durable when it returns.

        Raises:
            EpochLost: another orchestrator leads; nothing was written.
            LedgerDown: the database does not answer.
        """
        rows: list[AuditRow] = await self._write(lambda tx: append(tx, link))
        return rows

    async def sign(self, signed: CheckpointRow, forget_up_to: int = 0) -> None:
        """Keep a checkpoint; with `forget_up_to`, the rows that it seals go in the same transaction."""
        await self._write(lambda tx: sign(tx, signed, forget_up_to))

    async def listing(self, where: AuditFilter, cursor: str | None, limit: int) -> tuple[list[AuditRow], str | None]:
        """A page, newest first, and the next page's cursor. Raises InvalidCall: no cursor of ours."""

        def read(reader: Any) -> tuple[list[AuditRow], str | None]:  # noqa: ANN401 - a Reader
            rows, following = page(reader, _ALL.where(*_conditions(where)), _A.seq, cursor, limit)
            return [AuditRow(**{name: row[name] for name in _NAMES}) for row in rows], following

        return await self._readers.run(read)

    async def oldest(self, where: AuditFilter, cursor: str | None, limit: int) -> tuple[list[AuditRow], str | None]:
        """A page in the order of writing, and the next page's cursor. Raises InvalidCall: no cursor of ours."""
        after = 0 if cursor is None else seq_of(cursor)
        rows = await self.after(after, limit + 1, where)
        return rows[:limit], str(rows[limit - 1].seq) if len(rows) > limit else None

    async def after(self, seq: int, limit: int, where: AuditFilter | None = None) -> list[AuditRow]:
        """A page in the order of writing."""
        return await self._readers.run(lambda reader: ascending(reader.core, seq, limit, where))

    async def checkpoints(self) -> list[CheckpointRow]:
        """All of them, in order."""
        return await self._readers.run(lambda reader: checkpoints(reader.core))

    async def last_before(self, at_us: int) -> AuditHead | None:
        """The newest row that was written before, and that is not the newest of all."""
        newest = select(func.max(_A.seq)).scalar_subquery()
        query = select(_A.seq, _A.hash).where(_A.at_us < at_us, _A.seq < newest).order_by(_A.seq.desc()).limit(1)
        found = await self._readers.run(lambda reader: reader.core.execute(query).first())
        return None if found is None else AuditHead(*found)

    async def exported(self, target: str) -> int:
        """The last row that was sent there; 0: none."""
        query = select(_X.seq).where(_X.target == target)
        return await self._readers.run(lambda reader: reader.core.scalar(query)) or 0

    async def set_exported(self, target: str, seq: int) -> None:
        """It was sent."""
        await self._write(lambda tx: tx.put(_EXPORTED, [{"target": target, "seq": seq}]))


def _conditions(where: AuditFilter) -> Sequence[Any]:
    equal = {name: getattr(where, name) for name in ("tenant", "actor", "target", "decision")}
    found: list[Any] = [_A[name] == value for name, value in equal.items() if value is not None]
    if where.action is not None:
        found.append(_A.action.startswith(where.action, autoescape=True))
    if where.since_us is not None:
        found.append(_A.at_us >= where.since_us)
    if where.until_us is not None:
        found.append(_A.at_us < where.until_us)
    return found
