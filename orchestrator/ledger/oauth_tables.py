"""The tables of the authorization server. No statements."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, PrimaryKeyConstraint, Table, Text

from orchestrator.ledger.tables import META

OAUTH_CLIENTS = Table(
    "mcpfleet_oauth_clients",
    META,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("scopes", Text),
    Column("groups", Text, nullable=False),
    Column("secret_digest", Text),
    Column("previous_digest", Text),
    Column("previous_until", Double),
    Column("jwk_json", Text),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", Double),
)

OAUTH_KEYS = Table(
    "mcpfleet_oauth_keys",
    META,
    Column("kid", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("signs_from", Double, nullable=False),
    Column("sealed", Text, nullable=False),
)

OAUTH_SPENT = Table(
    "mcpfleet_oauth_spent",
    META,
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    PrimaryKeyConstraint("kind", "id"),
    sqlite_with_rowid=False,
)
Index("mcpfleet_oauth_spent_expires", OAUTH_SPENT.c.expires_at)
