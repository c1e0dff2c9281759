"""API keys, by digest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """A table that an orchestrator of the version before does not know."""
    texts = ("name", "tenant", "principal", "roles", "groups", "networks")
    op.create_table(
        "mcpfleet_keys",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, sa.Text) for name in ("scopes", "digest", "public_key")),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        *(sa.Column(name, sa.Double) for name in ("expires_at", "lifetime_s", "used_at")),
        *(sa.Column(name, sa.Text) for name in ("succeeds", "used_from")),
    )
