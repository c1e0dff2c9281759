"""Where the leader's doors are, for replicas that pass connections on to it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Orchestrators of the version before neither read nor write it."""
    op.add_column("mcpfleet_epoch", sa.Column("address", sa.Text))
