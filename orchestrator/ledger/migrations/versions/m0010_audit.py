"""The audit log: rows, signed checkpoints, and how far each export is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_TEXTS = (
    "tenant", "actor", "credential", "peer", "action", "target", "decision", "reason", "trace_id", "details_json",
    "prev", "hash",
)  # fmt: skip
_SEALED = "OLD.seq > (SELECT coalesce(max(sealed), 0) FROM mcpfleet_audit_checkpoints)"
_NO = "the audit log is append-only"


def upgrade() -> None:
    """Tables that an orchestrator of the version before does not know, and what keeps rows as they are."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "mcpfleet_audit",
        sa.Column("seq", number, primary_key=True, autoincrement=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXTS),
    )
    op.create_index("mcpfleet_audit_tenant", "mcpfleet_audit", ["tenant", "seq"])
    op.create_index("mcpfleet_audit_actor", "mcpfleet_audit", ["actor", "seq"])
    op.create_index("mcpfleet_audit_at", "mcpfleet_audit", ["at_us"])
    op.create_table(
        "mcpfleet_audit_checkpoints",
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.BigInteger, nullable=False),
        sa.Column("body_json", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", "sealed"),
    )
    op.create_table(
        "mcpfleet_audit_exports",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    for statement in _sqlite() if op.get_bind().dialect.name == "sqlite" else _postgres():
        op.execute(statement)


def _sqlite() -> tuple[str, ...]:
    raising = f"BEGIN SELECT RAISE(ABORT, '{_NO}'); END"
    return (
        f"CREATE TRIGGER mcpfleet_audit_update BEFORE UPDATE ON mcpfleet_audit {raising}",
        f"CREATE TRIGGER mcpfleet_audit_delete BEFORE DELETE ON mcpfleet_audit WHEN {_SEALED} {raising}",
    )


def _postgres() -> tuple[str, ...]:
    return (
        f"""CREATE FUNCTION mcpfleet_audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF TG_OP = 'DELETE' AND NOT ({_SEALED}) THEN RETURN OLD; END IF;
          RAISE EXCEPTION '{_NO}';
        END $$""",
        """CREATE TRIGGER mcpfleet_audit_keep BEFORE UPDATE OR DELETE ON mcpfleet_audit
        FOR EACH ROW EXECUTE FUNCTION mcpfleet_audit_keep()""",
    )
