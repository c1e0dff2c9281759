"""The audit log, as an orchestrator has it: made of its settings, and the loops that only the leader runs."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from orchestrator.audit.calls import AuditedCalls
from orchestrator.audit.checkpoint import signer_at
from orchestrator.audit.exports import Exports
from orchestrator.audit.log import AuditLog
from orchestrator.audit.sinks import keeper, targets
from orchestrator.leader import Loop, every
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.values import Accepted, NewInvocation
from orchestrator.settings import OrchestratorSettings
from tasks.clock import Clock

if TYPE_CHECKING:
    from orchestrator.core import Core

LOOK_EVERY_S = 5.0
EXPORT_EVERY_S = 1.0
KEY_NAME = "audit.key"
Accept = Callable[[Sequence[NewInvocation]], Awaitable[list[Accepted]]]


def audit_of(settings: OrchestratorSettings, ledger: Ledger, clock: Clock) -> AuditLog:
    """The log, with this orchestrator's key, made where there is none.

    Raises:
        SettingsError: the key cannot be used.
    """
    kept = keeper(settings.audit_checkpoints)
    return AuditLog(
        books=ledger.audit,
        signer=signer_at(settings.audit_key_file or settings.blob_dir.absolute().parent / KEY_NAME),
        clock=clock,
        keep=(lambda _line: None) if kept is None else (lambda line: kept.send([line])),
        checkpoint_rows=settings.audit_checkpoint_rows,
        checkpoint_s=settings.audit_checkpoint_s,
        retention_days=settings.audit_retention_days,
    )


def accept_of(settings: OrchestratorSettings | None, core: Core) -> Accept | None:
    """How calls are accepted where some are to be audited; None: as the ledger does."""
    patterns = [] if settings is None else [part.strip() for part in settings.audit_calls.split(",") if part.strip()]
    return AuditedCalls(core.stores.ledger, core.audit, patterns).accept if patterns else None


def audit_loops(settings: OrchestratorSettings, core: Core) -> list[Loop]:
    """What is due, and the exports.

    Raises:
        SettingsError: an export's address is none.
    """
    loops = [every(LOOK_EVERY_S, core.audit.look, "audit log")]
    if wanted := targets(settings.audit_export):
        exports = Exports(books=core.stores.ledger.audit, targets=wanted, host=socket.gethostname())
        loops.append(every(EXPORT_EVERY_S, exports.look, "audit exports"))
    return loops
