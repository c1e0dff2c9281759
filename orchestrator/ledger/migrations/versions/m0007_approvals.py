"""Questions of runs to people, and their answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """A table that an orchestrator of the version before does not know."""
    op.create_table(
        "mcpfleet_approvals",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("id", "invocation_id")),
        sa.Column("fence", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("node", "tenant", "tool")),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("asked_at", "expires_at")),
        sa.Column("frees_slot", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("answer", "answered_by")),
        sa.Column("answered_at", sa.Double),
        *(sa.Column(name, sa.Text) for name in ("reason", "taken")),
        sa.Column("taken_at", sa.Double),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("arguments_sha256", "arguments_json")),
    )
    op.create_index("mcpfleet_approvals_id", "mcpfleet_approvals", ["id"], unique=True)
    op.create_index("mcpfleet_approvals_invocation", "mcpfleet_approvals", ["invocation_id"])
    op.create_index("mcpfleet_approvals_tenant", "mcpfleet_approvals", ["tenant", "seq"])
