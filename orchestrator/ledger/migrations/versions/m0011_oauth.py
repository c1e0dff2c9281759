"""Clients, signing keys and spent ids of the authorization server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Tables that an orchestrator of the version before does not know."""
    op.create_table(
        "mcpfleet_oauth_clients",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "tenant", "roles")),
        sa.Column("scopes", sa.Text),
        sa.Column("groups", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("secret_digest", "previous_digest")),
        sa.Column("previous_until", sa.Double),
        sa.Column("jwk_json", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_table(
        "mcpfleet_oauth_keys",
        sa.Column("kid", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("created_at", "signs_from")),
        sa.Column("sealed", sa.Text, nullable=False),
    )
    op.create_table(
        "mcpfleet_oauth_spent",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("kind", "id")),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("kind", "id"),
        sqlite_with_rowid=False,
    )
    op.create_index("mcpfleet_oauth_spent_expires", "mcpfleet_oauth_spent", ["expires_at"])
