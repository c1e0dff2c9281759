"""What is sealed, and with what: the key ring and the sources of secrets, as the settings say."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger.ledger import Ledger
from orchestrator.secrets.desk import Secrets
from orchestrator.secrets.keyfile import read_keys
from orchestrator.secrets.keyring import KeyRing
from orchestrator.secrets.sources import FileSource, ValueSource
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


def secrets_of(
    settings: OrchestratorSettings,
    keys: KeyRing | None,
    ledger: Ledger,
    pool_of: Callable[[str], str | None],
    clock: Clock,
) -> Secrets:
    """The desk of secrets, with every source that has a setting."""
    sources: dict[str, ValueSource] = {}
    if settings.secrets_dir is not None:
        sources["file"] = FileSource(settings.secrets_dir)
    return Secrets(books=ledger, keys=keys, sources=sources, pool_of=pool_of, clock=clock)
