"""Secrets: sealed values, where the others are, and which nodes may have them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """A table that an orchestrator of the version before does not know."""
    op.create_table(
        "mcpfleet_secrets",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("tenant", "owner", "name")),
        sa.Column("version", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("source", "nodes", "pools")),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("created_at", "changed_at")),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("sealed", sa.Text),
        sa.PrimaryKeyConstraint("tenant", "owner", "name"),
    )
