"""Erasing a project: its ended calls with everything of them, a slice at a time, in the order of acceptance.

What has not ended stays, and is counted: its node still has it. Refuses to delete blobs: `orchestrator/erasure.py`
does, for others may have the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Integer, bindparam, literal_column, select

from orchestrator.ledger.purge import WITH_IT
from orchestrator.ledger.tables import INVOCATIONS
from orchestrator.ledger.transaction import Hot, Tx

T = TypeVar("T")
_C = INVOCATIONS.c
_SLICE = Hot(
    select(_C.seq, _C.id, _C.ended_at, _C.arguments_blob, _C.result_blob, _C.capsule_blob)
    .where(_C.project == bindparam("p_project"), _C.tenant == bindparam("p_tenant"), _C.seq > bindparam("p_after"))
    .order_by(_C.seq)
    .limit(bindparam("p_limit", type_=Integer))
    .offset(literal_column("0"))  # SQLite has no limit alone
)


@dataclass(frozen=True, slots=True)
class Erased:
    """What one slice did."""

    calls: int
    open: int
    """Not ended, and left."""
    blobs: frozenset[str]
    """Digests that rows of it named."""
    after: int | None
    """Where the next one begins; None at the end."""


def erase(tx: Tx, tenant: str, project: str, after: int, limit: int) -> Erased:
    """Delete the next slice of what ended."""
    found = tx.all(_SLICE, {"p_tenant": tenant, "p_project": project, "p_after": after, "p_limit": limit})
    gone = [row for row in found if row[2] is not None]
    if gone:
        for statement in WITH_IT:
            tx.put(statement, [{"p_id": row[1]} for row in gone])
    blobs = frozenset(digest for row in gone for digest in row[3:] if digest is not None)
    return Erased(len(gone), len(found) - len(gone), blobs, int(found[-1][0]) if len(found) == limit else None)


class Books(Protocol):
    """The ledger."""

    async def write(self, operation: Callable[[Tx], T]) -> T: ...
    async def blob_references(self, *, after: int, limit: int) -> tuple[list[str], int | None]: ...


class ErasedRows:
    """Projects of a ledger, as far as they are erased."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def erase(self, tenant: str, project: str, after: int, limit: int) -> Erased:
        """Delete the next slice of what ended."""
        return await self._books.write(lambda tx: erase(tx, tenant, project, after, limit))

    async def blob_references(self, *, after: int, limit: int) -> tuple[list[str], int | None]:
        """As the ledger's."""
        return await self._books.blob_references(after=after, limit=limit)
