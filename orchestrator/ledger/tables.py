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
    or_,
)

from tasks.invocation import State

SCHEMA = "0012"
"""The newest migration. A ledger that is at it opens without loading alembic."""

META = MetaData()
SEQ = BigInteger().with_variant(Integer, "sqlite")


def is_still(states: Iterable[State]) -> ColumnElement[bool]:
    """The state's part of a compare-and-set: one of `states`, judged on the row that its id found.

    The concatenation keeps the planner off the index on `state`: PostgreSQL, having planned while a
    table was empty, would walk everything that waits to find one row. Equalities, because SQLite
    builds a table for each IN list (8 µs per row, measured).
    """
    found = INVOCATIONS.c.state + literal_column("''")
    return or_(*(found == literal_column(f"'{state.value}'") for state in sorted(states)))


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
    Column("root", Text),
    Column("depth", Integer),
    Column("requires_json", Text),
    Column("ending", Text),
    Column("arguments_blob", Text),
    Column("result_blob", Text),
    Column("capsule_blob", Text),
    Column("capsule_number", Integer),
    Column("rest_json", Text),
    Column("error_json", Text),
    Column("meta_json", Text),
    Column("arguments_json", Text),
    Column("result_json", Text),
)

_C = INVOCATIONS.c


Index("mcpfleet_invocations_id", _C.id, unique=True)
Index("mcpfleet_invocations_tenant", _C.tenant, _C.seq)
Index("mcpfleet_invocations_tool", _C.tool, _C.seq)
# One index on every state, not a partial one for each use: a partial index's condition is evaluated
# for the old and the new row of each update, which measured 40 µs more per settlement on SQLite.
Index("mcpfleet_invocations_state", _C.state, _C.seq)
Index("mcpfleet_invocations_project", _C.project, _C.seq)
Index(
    "mcpfleet_invocations_key",
    _C.tenant,
    _C.idempotency_key,
    unique=True,
    sqlite_where=_C.idempotency_key.is_not(None),
    postgresql_where=_C.idempotency_key.is_not(None),
)

Index(
    "mcpfleet_invocations_root",
    _C.root,
    sqlite_where=_C.root.is_not(None),
    postgresql_where=_C.root.is_not(None),
)

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
    Column("is_safe", Boolean),
    Column("on_node_loss", Text),
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
    Column("address", Text),
)
"""One row, id 1, put there by the first migration. `expires_at` is on the database's clock."""

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
    Column("join_number", Integer),
    Column("wish", Text),
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

APPROVALS = Table(
    "mcpfleet_approvals",
    META,
    Column("seq", SEQ, Identity(), primary_key=True),
    Column("id", Text, nullable=False),
    Column("invocation_id", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("frees_slot", Boolean, nullable=False),
    Column("answer", Text),
    Column("answered_by", Text),
    Column("answered_at", Double),
    Column("reason", Text),
    Column("taken", Text),
    Column("taken_at", Double),
    Column("arguments_sha256", Text, nullable=False),
    Column("arguments_json", Text, nullable=False),
)
Index("mcpfleet_approvals_id", APPROVALS.c.id, unique=True)
Index("mcpfleet_approvals_invocation", APPROVALS.c.invocation_id)
Index("mcpfleet_approvals_tenant", APPROVALS.c.tenant, APPROVALS.c.seq)

NODE_CLAIMS = Table(
    "mcpfleet_node_claims",
    META,
    Column("id", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("state_at", Double, nullable=False),
    Column("body_json", Text, nullable=False),
)

ENROLMENTS = Table(
    "mcpfleet_enrolments",
    META,
    Column("name", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("token_digest", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("credential_digest", Text),
    Column("used_at", Double),
)

KEYS = Table(
    "mcpfleet_keys",
    META,
    Column("id", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("name", "tenant", "principal", "roles", "groups", "networks")),
    *(Column(name, Text) for name in ("scopes", "digest", "public_key")),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    *(Column(name, Double) for name in ("expires_at", "lifetime_s", "used_at")),
    *(Column(name, Text) for name in ("succeeds", "used_from")),
)

SCALE_POOLS = Table(
    "mcpfleet_scale_pools",
    META,
    Column("pool", Text, primary_key=True),
    Column("shape_json", Text),
    Column("season_json", Text),
    Column("override_json", Text),
)

SCALE_LOG = Table(
    "mcpfleet_scale_log",
    META,
    Column("seq", SEQ, Identity(), primary_key=True),
    Column("pool", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("observation_json", Text, nullable=False),
    Column("decision_json", Text, nullable=False),
)
Index("mcpfleet_scale_log_pool", SCALE_LOG.c.pool, SCALE_LOG.c.at)
Index("mcpfleet_scale_log_at", SCALE_LOG.c.at)

SPEND = Table(
    "mcpfleet_spend",
    META,
    Column("invocation_id", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("released_at", Double, nullable=False),
    Column("model", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("project", Text),
    Column("tool", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("cache_read", BigInteger, nullable=False),
    Column("cache_write", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("is_estimated", Boolean, nullable=False),
    PrimaryKeyConstraint("invocation_id", "fence", "released_at", "model"),
    sqlite_with_rowid=False,
)
"""What an attempt spent on one model; NULL `cost_usd`: no price was known. Whole without its call, which goes first.

`released_at` is in the key because an id may be used again when its call is gone, and this is still here.
"""
Index("mcpfleet_spend_tenant", SPEND.c.tenant, SPEND.c.at)
Index("mcpfleet_spend_project", SPEND.c.tenant, SPEND.c.project, SPEND.c.at)
Index("mcpfleet_spend_at", SPEND.c.at)

GRANTS = Table(
    "mcpfleet_grants",
    META,
    Column("id", Text, primary_key=True),
    *(
        Column(name, Text, nullable=False)
        for name in ("tenant", "agent", "requested_by", "credential", "resource_type", "scope", "justification")
    ),
    *(Column(name, Text, nullable=False) for name in ("restrictions_json", "state", "reason", "rules")),
    *(Column(name, Text) for name in ("parent", "decided_by", "key", "revoked_by")),
    Column("trust", Integer, nullable=False),
    *(Column(name, Double, nullable=False) for name in ("lifetime_s", "asked_at")),
    *(Column(name, Double) for name in ("answer_by", "decided_at", "expires_at", "revoked_at")),
)

GRANT_KEYS = Table(
    "mcpfleet_grant_keys",
    META,
    Column("id", Text, primary_key=True),
    Column("public", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

SECRETS = Table(
    "mcpfleet_secrets",
    META,
    Column("tenant", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("nodes", Text, nullable=False),
    Column("pools", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("sealed", Text),
    PrimaryKeyConstraint("tenant", "owner", "name"),
)
"""The newest version of each alone: an old value is gone when a new one is set. `sealed`: of the source `database`."""

AUDIT = Table(
    "mcpfleet_audit",
    META,
    Column("seq", SEQ, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    *(
        Column(name, Text, nullable=False)
        for name in ("tenant", "actor", "credential", "peer", "action", "target", "decision", "reason", "trace_id")
    ),
    Column("details_json", Text, nullable=False),
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
"""Append-only, and numbered by the writer without gaps: each row carries the hash of the one before."""
Index("mcpfleet_audit_tenant", AUDIT.c.tenant, AUDIT.c.seq)
Index("mcpfleet_audit_actor", AUDIT.c.actor, AUDIT.c.seq)
Index("mcpfleet_audit_at", AUDIT.c.at_us)

AUDIT_CHECKPOINTS = Table(
    "mcpfleet_audit_checkpoints",
    META,
    Column("seq", BigInteger, nullable=False),
    Column("sealed", BigInteger, nullable=False),
    Column("body_json", Text, nullable=False),
    Column("signature", Text, nullable=False),
    PrimaryKeyConstraint("seq", "sealed"),
)

AUDIT_EXPORTS = Table(
    "mcpfleet_audit_exports",
    META,
    Column("target", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
