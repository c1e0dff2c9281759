"""The ledger's tables and indexes, for SQLite and PostgreSQL alike. No statements.

Big columns come last, so that a scan of a row's head never touches its overflow pages. Rows are
ordered by `seq`, the order of acceptance: callers may choose ids, so an id does not tell age.
There are no foreign keys: an attempt is only ever written in the transaction whose compare-and-set
on its Invocation took, and a check would cost one more index descent on the hottest path.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    literal_column,
)

from tasks.invocation import OUTSTANDING, State

SCHEMA = "0001"
"""The newest migration. A ledger that is at it opens without loading alembic."""

BAD_ENDS = (State.CANCELLED, State.EXPIRED, State.FAILED, State.LOST)
"""Indexed by state: they are few. Successes are most rows, so a backward scan finds them at once."""

META = MetaData()
SEQ = BigInteger().with_variant(Integer, "sqlite")


def state_in(states: Iterable[State]) -> ColumnElement[bool]:
    """`state IN ('…')` with the states written out, as a partial index needs it to be considered."""
    words: list[ColumnElement[str]] = [literal_column(f"'{state.value}'") for state in sorted(states)]
    return INVOCATIONS.c.state.in_(words)


INVOCATIONS = Table(
    "mcpfleet_invocations",
    META,
    Column("seq", SEQ, Identity(), primary_key=True),
    Column("id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("project", Text),
    Column("lane", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("pool", Text),
    Column("node", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("accepted_at", Double, nullable=False),
    Column("not_before", Double),
    Column("expires_at", Double),
    Column("timeout_s", Double),
    Column("ended_at", Double),
    Column("trace_id", Text),
    Column("idempotency_key", Text),
    Column("call_digest", Text, nullable=False),
    Column("replay_of", Text),
    Column("requires_json", Text),
    Column("ending", Text),
    Column("arguments_blob", Text),
    Column("result_blob", Text),
    Column("rest_json", Text),
    Column("error_json", Text),
    Column("meta_json", Text),
    Column("arguments_json", Text),
    Column("result_json", Text),
)

_C = INVOCATIONS.c


def _partial(name: str, *columns: Column[object], where: ColumnElement[bool], unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


Index("mcpfleet_invocations_id", _C.id, unique=True)
Index("mcpfleet_invocations_tenant", _C.tenant, _C.seq)
Index("mcpfleet_invocations_tool", _C.tool, _C.seq)
_partial("mcpfleet_invocations_project", _C.project, _C.seq, where=_C.project.is_not(None))
_partial("mcpfleet_invocations_key", _C.tenant, _C.idempotency_key, where=_C.idempotency_key.is_not(None), unique=True)
_partial("mcpfleet_invocations_waiting", _C.seq, where=state_in([State.WAITING]))
_partial("mcpfleet_invocations_outstanding", _C.seq, where=state_in(OUTSTANDING))
_partial("mcpfleet_invocations_bad", _C.state, _C.seq, where=state_in(BAD_ENDS))

ATTEMPTS = Table(
    "mcpfleet_attempts",
    META,
    Column("invocation_id", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("node", Text),
    Column("incarnation", Text),
    Column("term", Integer, nullable=False),
    Column("pool", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("released_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("ending", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("reasons_json", Text, nullable=False),
    PrimaryKeyConstraint("invocation_id", "fence"),
    sqlite_with_rowid=False,
)

DEAD_LETTERS = Table(
    "mcpfleet_dead_letters",
    META,
    Column("seq", SEQ, Identity(), primary_key=True),
    Column("invocation_id", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("project", Text),
    Column("tenant", Text, nullable=False),
    Column("ending", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("error_json", Text),
    Column("ended_at", Double, nullable=False),
    Column("replayed_as", Text),
)
Index("mcpfleet_dead_letters_invocation", DEAD_LETTERS.c.invocation_id, unique=True)
Index("mcpfleet_dead_letters_tenant", DEAD_LETTERS.c.tenant, DEAD_LETTERS.c.seq)

EPOCH = Table(
    "mcpfleet_epoch",
    META,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("holder", Text),
    Column("expires_at", Double, nullable=False),
)
"""One row, id 1, put there by the first migration."""

NODES = Table(
    "mcpfleet_nodes",
    META,
    Column("name", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("term", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("offer_json", Text, nullable=False),
    Column("delivery_key", Text, nullable=False),
    Column("token_digest", Text, nullable=False),
    Column("joined_at", Double, nullable=False),
)

AFFINITY = Table(
    "mcpfleet_affinity",
    META,
    Column("project", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
)

PAUSES = Table(
    "mcpfleet_pauses",
    META,
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
)
