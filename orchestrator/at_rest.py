"""What is sealed, and with what: the key ring and the sources of secrets, as the settings say."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core import Stores
from orchestrator.happenings import Ended, Happening
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.reseal import shelves
from orchestrator.ledger.sealed import SealedLedger
from orchestrator.ledger.secret_rows import SecretRows
from orchestrator.secrets.desk import Secrets
from orchestrator.secrets.keyfile import read_keys
from orchestrator.secrets.keyring import KeyRing, NoKeyRing
from orchestrator.secrets.resealing import Resealing
from orchestrator.secrets.sources import FileSource, ValueSource
from orchestrator.secrets.vault import VaultPlace, VaultSource
from orchestrator.settings import OrchestratorSettings
from tasks.clock import Clock
from tasks.errors import SettingsError


def keys_of(settings: OrchestratorSettings) -> KeyRing | None:
    """The key ring; None where no file is named. Raises SettingsError."""
    if settings.seal_payloads and settings.key_file is None:
        raise SettingsError(
            "MCPFLEET_SEAL_PAYLOADS needs keys to seal with: make a file of them with `mcpfleet secrets new-key FILE`, "
            "and set MCPFLEET_KEY_FILE to it"
        )
    return None if settings.key_file is None else read_keys(settings.key_file)


async def ledger_of(settings: OrchestratorSettings, keys: KeyRing | None, clock: Clock) -> Ledger:
    """The ledger: opens what was sealed, and seals where that is asked for.

    Without keys it refuses what was sealed earlier, with KeyMissing: else ciphertext would pass for arguments.

    Raises:
        LedgerDown, SettingsError, SchemaTooNew: as `Ledger.open`.
    """
    ledger = await SealedLedger.open(settings.database_url, clock=clock)
    return ledger.with_keys(keys or NoKeyRing(), seals=settings.seal_payloads)


def secrets_of(settings: OrchestratorSettings, stores: Stores, pool_of: Callable[[str], str | None]) -> Secrets:
    """The desk of secrets, with every source that has a setting."""
    sources: dict[str, ValueSource] = {}
    if settings.secrets_dir is not None:
        sources["file"] = FileSource(settings.secrets_dir)
    if settings.vault_url:
        sources["vault"] = VaultSource(_vault_place(settings))
    return Secrets(
        books=SecretRows(stores.ledger),
        keys=stores.keys,
        sources=sources,
        pool_of=pool_of,
        clock=stores.clock,
        blobs=stores.blobs,
        rows=None if stores.keys is None else Resealing(shelves(stores.ledger), stores.keys),
    )


def _vault_place(settings: OrchestratorSettings) -> VaultPlace:
    return VaultPlace(
        settings.vault_url,
        settings.vault_mount,
        settings.vault_prefix,
        settings.vault_namespace,
        settings.vault_token_file,
        settings.vault_role_id,
        settings.vault_secret_id_file,
        settings.vault_ca_file,
    )


def tell_unopened(ledger: Ledger, tell: Callable[[Happening], None]) -> None:
    """Say of a call that ended because its row does not open what is said of every end: whoever waits hears it now."""
    if isinstance(ledger, SealedLedger):
        ledger.on_unopened = lambda end, tool: tell(
            Ended(end.invocation_id, end.to, end.at, tool, end.outcome, end.dead_reason)
        )
