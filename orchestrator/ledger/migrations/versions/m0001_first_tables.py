"""The first tables: invocations, attempts, dead letters, epoch, nodes, affinity, pauses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create everything, and the one row of the epoch."""
    _invocations()
    _invocation_indexes()
    _attempts()
    _dead_letters()
    _fleet()


def _invocations() -> None:
    op.create_table(
        "mcpfleet_invocations",
        sa.Column("seq", SEQ, sa.Identity(), primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("project", sa.Text),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("pool", sa.Text),
        sa.Column("node", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("not_before", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.Column("timeout_s", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("trace_id", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("call_digest", sa.Text, nullable=False),
        sa.Column("replay_of", sa.Text),
        sa.Column("requires_json", sa.Text),
        sa.Column("ending", sa.Text),
        sa.Column("arguments_blob", sa.Text),
        sa.Column("result_blob", sa.Text),
        sa.Column("rest_json", sa.Text),
        sa.Column("error_json", sa.Text),
        sa.Column("meta_json", sa.Text),
        sa.Column("arguments_json", sa.Text),
        sa.Column("result_json", sa.Text),
    )


def _invocation_indexes() -> None:
    table = "mcpfleet_invocations"
    op.create_index("mcpfleet_invocations_id", table, ["id"], unique=True)
    op.create_index("mcpfleet_invocations_tenant", table, ["tenant", "seq"])
    op.create_index("mcpfleet_invocations_tool", table, ["tool", "seq"])
    op.create_index("mcpfleet_invocations_state", table, ["state", "seq"])
    op.create_index("mcpfleet_invocations_project", table, ["project", "seq"])
    has_key = sa.text("idempotency_key IS NOT NULL")
    op.create_index(
        "mcpfleet_invocations_key",
        table,
        ["tenant", "idempotency_key"],
        unique=True,
        sqlite_where=has_key,
        postgresql_where=has_key,
    )


def _attempts() -> None:
    op.create_table(
        "mcpfleet_attempts",
        sa.Column("invocation_id", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("node", sa.Text),
        sa.Column("incarnation", sa.Text),
        sa.Column("term", sa.Integer, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("released_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("ending", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("reasons_json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("invocation_id", "fence"),
        sqlite_with_rowid=False,
    )


def _dead_letters() -> None:
    table = "mcpfleet_dead_letters"
    op.create_table(
        table,
        sa.Column("seq", SEQ, sa.Identity(), primary_key=True),
        sa.Column("invocation_id", sa.Text, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("project", sa.Text),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("ending", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("error_json", sa.Text),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("replayed_as", sa.Text),
    )
    op.create_index("mcpfleet_dead_letters_invocation", table, ["invocation_id"], unique=True)
    op.create_index("mcpfleet_dead_letters_tenant", table, ["tenant", "seq"])


def _fleet() -> None:
    epoch = op.create_table(
        "mcpfleet_epoch",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.bulk_insert(epoch, [{"id": 1, "epoch": 0, "holder": None, "expires_at": 0.0}])
    op.create_table(
        "mcpfleet_nodes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("term", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("offer_json", sa.Text, nullable=False),
        sa.Column("delivery_key", sa.Text, nullable=False),
        sa.Column("token_digest", sa.Text, nullable=False),
        sa.Column("joined_at", sa.Double, nullable=False),
    )
    op.create_table(
        "mcpfleet_affinity",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_table(
        "mcpfleet_pauses",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name"),
    )
