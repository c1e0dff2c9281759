"""What attempts spent on models: kept apart, because reports outlive calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """A table that an orchestrator of the version before does not know."""
    op.create_table(
        "mcpfleet_spend",
        sa.Column("invocation_id", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("released_at", sa.Double, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("project", sa.Text),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("requests", "input", "output", "cache_read", "cache_write")
        ),
        sa.Column("cost_usd", sa.Double),
        sa.Column("is_estimated", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("invocation_id", "fence", "released_at", "model"),
        sqlite_with_rowid=False,
    )
    op.create_index("mcpfleet_spend_tenant", "mcpfleet_spend", ["tenant", "at"])
    op.create_index("mcpfleet_spend_project", "mcpfleet_spend", ["tenant", "project", "at"])
    op.create_index("mcpfleet_spend_at", "mcpfleet_spend", ["at"])
