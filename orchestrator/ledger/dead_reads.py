"""Questions about dead letters: a page of them, and how many of each reason. Changes nothing."""

from __future__ import annotations

from sqlalchemy import ColumnElement, RowMapping, func, select

from orchestrator.ledger.dead_values import DeadCount, DeadFilter, DeadLetter
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.reads import page
from orchestrator.ledger.rows import error_of
from orchestrator.ledger.tables import DEAD_LETTERS

_D = DEAD_LETTERS.c


def dead_letters(
    reader: Reader, tenant: str | None, where: DeadFilter, cursor: str | None, limit: int
) -> tuple[list[DeadLetter], str | None]:
    """One page of dead letters, newest first, and the cursor of the next.

    Raises:
        InvalidCall: the cursor is not one that this gave.
    """
    query = select(DEAD_LETTERS).where(*_conditions(tenant, where))
    rows, following = page(reader, query, _D.seq, cursor, limit)
    return [_dead_letter(row) for row in rows], following


def dead_counts(reader: Reader, tenant: str | None, where: DeadFilter) -> list[DeadCount]:
    """How many there are of each reason, the most first."""
    letters = func.count().label("letters")
    query = select(_D.reason, letters, func.count(_D.replayed_as).label("replayed")).where(*_conditions(tenant, where))
    rows = reader.core.execute(query.group_by(_D.reason).order_by(letters.desc(), _D.reason)).all()
    return [DeadCount(reason, letters, replayed) for reason, letters, replayed in rows]


def dead_count(reader: Reader) -> int:
    """How many dead letters nobody replayed or discarded."""
    return int(reader.core.execute(select(func.count()).where(_D.replayed_as.is_(None))).scalar_one())


def _conditions(tenant: str | None, where: DeadFilter) -> list[ColumnElement[bool]]:
    named = {"reason": where.reason, "tool": where.tool, "project": where.project}
    equal = {"tenant": tenant, "invocation_id": where.id, **named}
    found: list[ColumnElement[bool]] = [_D[name] == value for name, value in equal.items() if value is not None]
    if where.until is not None:
        found.append(_D.ended_at <= where.until)
    if where.is_unanswered:
        found.append(_D.replayed_as.is_(None))
    return found


def _dead_letter(row: RowMapping) -> DeadLetter:
    return DeadLetter(
        invocation_id=row["invocation_id"],
        tool=row["tool"],
        project=row["project"],
        tenant=row["tenant"],
        ending=row["ending"],
        reason=row["reason"],
        error=error_of(row["error_json"]),
        ended_at=row["ended_at"],
        replayed_as=row["replayed_as"],
    )
