"""The pools file, read as the orchestrator will read it: before a fleet is started, and by doctor.

Refuses to ask any cloud: whether credentials are good, only an order tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.cli.findings import Finding, Health
from tasks.errors import SettingsError

POOLS_FILE = "MCPFLEET_POOLS_FILE"


def check_pools(environ: Mapping[str, str], state_dir: Path) -> Iterator[Finding]:
    """A finding on the file, where one is named."""
    if not environ.get(POOLS_FILE):
        return
    try:
        sized = read_whole(environ, state_dir)
    except SettingsError as error:
        yield Finding(
            check="pools", health=Health.FAIL, detail=error.message, mend=f"correct it, or unset {POOLS_FILE}"
        )
        return
    detail = f"{environ[POOLS_FILE]}: sized are {', '.join(sized) or 'none'}"
    yield Finding(check="pools", health=Health.OK, detail=detail)


def read_whole(environ: Mapping[str, str], state_dir: Path) -> list[str]:
    """Pools that are sized; the options of every provider are read too.

    Raises:
        SettingsError: what stops the orchestrator's start.
    """
    if not environ.get(POOLS_FILE):
        return []
    from orchestrator.autoscaler.cloud.plugins import open_provider
    from orchestrator.pools import read_pools

    policies = read_pools(Path(environ[POOLS_FILE]), cloud_dir=state_dir / "cloud", environ=environ)
    for config in policies.providers.values():
        open_provider(config)
    return list(policies.scaled)
