"""What the ledger remembers for the autoscaler: claims, enrolments, pools' sizes, the log of decisions.

Rare beside calls, so each is one small operation. Refuses to interpret any of it.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, delete, literal_column, select
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.readers import Reader
from orchestrator.ledger.tables import ENROLMENTS, NODE_CLAIMS, SCALE_LOG, SCALE_POOLS
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import ClaimRow, EnrolmentRow, ScaleLogRow, ScalePoolRow

_GONE: ColumnElement[str] = literal_column("'gone'")


def _replacing(table: Table, key: str) -> Hot:
    names = tuple(column.name for column in table.columns)
    new = insert(table)
    changed = {name: new.excluded[name] for name in names if name != key}
    return Hot(new.on_conflict_do_update(index_elements=[key], set_=changed).inline(), names)


_SAVE_CLAIM = _replacing(NODE_CLAIMS, "id")
_SAVE_ENROLMENT = _replacing(ENROLMENTS, "name")
_SAVE_POOL = _replacing(SCALE_POOLS, "pool")
_LOG = Hot(insert(SCALE_LOG).inline(), tuple(field.name for field in fields(ScaleLogRow)))
_FORGET_CLAIMS = Hot(
    delete(NODE_CLAIMS).where(NODE_CLAIMS.c.state == _GONE, NODE_CLAIMS.c.state_at < bindparam("p_before"))
)
_FORGET_ENROLMENT = Hot(delete(ENROLMENTS).where(ENROLMENTS.c.name == bindparam("p_name")))
_FORGET_LOG = Hot(delete(SCALE_LOG).where(SCALE_LOG.c.at < bindparam("p_before")))


def save_claim(tx: Tx, row: ClaimRow) -> None:
    """Insert or replace one claim."""
    tx.put(_SAVE_CLAIM, [asdict(row)])


def forget_claims(tx: Tx, gone_before: float) -> int:
    """Delete claims whose machines have been gone since before that wall clock; how many there were."""
    return tx.counts(_FORGET_CLAIMS, [{"p_before": gone_before}])[0]


def save_enrolment(tx: Tx, row: EnrolmentRow) -> None:
    """Insert or replace one node's enrolment."""
    tx.put(_SAVE_ENROLMENT, [asdict(row)])


def forget_enrolment(tx: Tx, name: str) -> None:
    """Delete one; its token and its credential are void."""
    tx.put(_FORGET_ENROLMENT, [{"p_name": name}])


def save_scale_pool(tx: Tx, row: ScalePoolRow) -> None:
    """Insert or replace what is remembered of one pool."""
    tx.put(_SAVE_POOL, [asdict(row)])


def log_scale(tx: Tx, row: ScaleLogRow) -> None:
    """Add one decision."""
    tx.put(_LOG, [asdict(row)])


def forget_scale_log(tx: Tx, before: float) -> int:
    """Delete decisions older than that wall clock; how many there were."""
    return tx.counts(_FORGET_LOG, [{"p_before": before}])[0]


def claims(reader: Reader) -> list[ClaimRow]:
    """Every claim that is kept, oldest first."""
    return [ClaimRow(**row) for row in _rows(reader, NODE_CLAIMS, NODE_CLAIMS.c.created_at, NODE_CLAIMS.c.id)]


def enrolments(reader: Reader) -> list[EnrolmentRow]:
    """Every enrolment, by name."""
    return [EnrolmentRow(**row) for row in _rows(reader, ENROLMENTS, ENROLMENTS.c.name)]


def scale_pools(reader: Reader) -> list[ScalePoolRow]:
    """Every pool of which something is remembered, by name."""
    return [ScalePoolRow(**row) for row in _rows(reader, SCALE_POOLS, SCALE_POOLS.c.pool)]


def scale_log(
    reader: Reader, pool: str | None, since: float, limit: int, until: float | None = None
) -> list[ScaleLogRow]:
    """The newest `limit` decisions since that wall clock, and not later than `until`; oldest first."""
    columns = [SCALE_LOG.c[field.name] for field in fields(ScaleLogRow)]
    query = select(*columns).where(SCALE_LOG.c.at >= since)
    if until is not None:
        query = query.where(SCALE_LOG.c.at <= until)
    if pool is not None:
        query = query.where(SCALE_LOG.c.pool == pool)
    found = reader.core.execute(query.order_by(SCALE_LOG.c.seq.desc()).limit(limit)).mappings().all()
    return [ScaleLogRow(**row) for row in reversed(found)]


def _rows(reader: Reader, table: Table, *order: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - columns
    return [dict(row) for row in reader.core.execute(select(table).order_by(*order)).mappings()]
