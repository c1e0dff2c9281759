"""What only the ledger raises, besides `tasks.errors`."""

from __future__ import annotations

from tasks.errors import Permanent, Retryable


class EpochLost(Retryable):
    """Another orchestrator leads now: this one writes nothing more."""

    code = "epoch_lost"

    def __init__(self, epoch: int, current: int) -> None:
        super().__init__(f"epoch {epoch} is over, {current} is current: another leads, nothing was written; ask again")
        self.epoch, self.current = epoch, current


class Unstorable(Permanent):
    """The database refuses a value of this operation; its neighbours were committed."""

    code = "unstorable"
    http_status = 422

    def __init__(self, operation: str, detail: str) -> None:
        super().__init__(f"the ledger cannot store what {operation} was given ({detail}); nothing of it was kept")
        self.operation, self.detail = operation, detail


class SchemaTooNew(Permanent):
    """The database was written by a newer mcpfleet."""

    code = "schema_too_new"

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the ledger's schema is {found} and this mcpfleet knows up to {known}; start the newer version, "
            "or restore a backup from before the upgrade"
        )
        self.found, self.known = found, known


class NoLedger(Permanent):
    """There is none where one was to be read."""

    code = "no_ledger"

    def __init__(self, shown: str) -> None:
        super().__init__(f"there is no ledger at {shown}; set MCPFLEET_DATABASE_URL as the orchestrator has it")
        self.shown = shown
