"""What alembic runs: migrations on the connection that the ledger hands over, and on no other."""

from __future__ import annotations

from alembic import context

from orchestrator.ledger.schema import VERSION_TABLE
from orchestrator.ledger.tables import META

context.configure(connection=context.config.attributes["connection"], target_metadata=META, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
