"""Grants that were asked for, and the public keys that signed them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Tables that an orchestrator of the version before does not know."""
    texts = (
        "tenant", "agent", "requested_by", "credential", "resource_type", "scope", "justification",
        "restrictions_json", "state", "reason", "rules",
    )  # fmt: skip
    op.create_table(
        "mcpfleet_grants",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, sa.Text) for name in ("parent", "decided_by", "key", "revoked_by")),
        sa.Column("trust", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("lifetime_s", "asked_at")),
        *(sa.Column(name, sa.Double) for name in ("answer_by", "decided_at", "expires_at", "revoked_at")),
    )
    op.create_table(
        "mcpfleet_grant_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("public", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
