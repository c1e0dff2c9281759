"""What was last saved of an agent's session, beside the Invocation that it belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """NULL for every call that is no agent's run."""
    op.add_column("mcpfleet_invocations", sa.Column("capsule_blob", sa.Text))
    op.add_column("mcpfleet_invocations", sa.Column("capsule_number", sa.Integer))
