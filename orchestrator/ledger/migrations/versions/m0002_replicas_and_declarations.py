"""Where the leader's doors are; what a tool declared when a call of it was released; more of a node."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Columns that an orchestrator of the version before neither reads nor writes."""
    op.add_column("mcpfleet_epoch", sa.Column("address", sa.Text))
    op.add_column("mcpfleet_attempts", sa.Column("is_safe", sa.Boolean))
    op.add_column("mcpfleet_attempts", sa.Column("on_node_loss", sa.Text))
    op.add_column("mcpfleet_nodes", sa.Column("join_number", sa.Integer))
    op.add_column("mcpfleet_nodes", sa.Column("wish", sa.Text))
