"""What the autoscaler remembers: machines it ordered, how they enrol, pools' sizes, and its decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Tables that an orchestrator of the version before does not know."""
    op.create_table(
        "mcpfleet_node_claims",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("pool", "node", "state")),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("created_at", "state_at")),
        sa.Column("body_json", sa.Text, nullable=False),
    )
    op.create_table(
        "mcpfleet_enrolments",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("token_digest", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("credential_digest", sa.Text),
        sa.Column("used_at", sa.Double),
    )
    op.create_table(
        "mcpfleet_scale_pools",
        sa.Column("pool", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text) for name in ("shape_json", "season_json", "override_json")),
    )
    op.create_table(
        "mcpfleet_scale_log",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("observation_json", "decision_json")),
    )
    op.create_index("mcpfleet_scale_log_pool", "mcpfleet_scale_log", ["pool", "at"])
    op.create_index("mcpfleet_scale_log_at", "mcpfleet_scale_log", ["at"])
