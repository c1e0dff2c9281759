"""Which Invocation a call began with, and how many parents are between."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Columns that an orchestrator of the version before neither reads nor writes."""
    op.add_column("mcpfleet_invocations", sa.Column("root", sa.Text))
    op.add_column("mcpfleet_invocations", sa.Column("depth", sa.Integer))
    has_root = sa.text("root IS NOT NULL")
    op.create_index(
        "mcpfleet_invocations_root", "mcpfleet_invocations", ["root"], sqlite_where=has_root, postgresql_where=has_root
    )
