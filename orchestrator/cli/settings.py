"""Where the command line finds its fleet. The only place of the CLI that reads the environment.

Owns `MCPFLEET_URL`, `MCPFLEET_TOKEN`, `MCPFLEET_TOKEN_FILE` and `MCPFLEET_STATE_DIR`; the orchestrator's own are
in `orchestrator/settings.py`.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.local.statefile import FleetFile, read_fleet_file
from tasks.client.settings import home_of, token_in
from tasks.errors import NotAllowed, OrchestratorDown, SettingsError

DEFAULT_URL = "http://127.0.0.1:8700"
"""Shown when nothing is set and no local fleet runs."""


@dataclass(frozen=True, slots=True)
class CliSettings:
    """What was set, before it is known whether a fleet answers."""

    state_dir: Path
    url: str | None = None
    token: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    """Handed on to child processes and to the orchestrator's own settings."""


@dataclass(frozen=True, slots=True)
class Target:
    """A fleet to talk to, and where its address came from."""

    url: str
    token: str
    source: str


def read_settings(environ: Mapping[str, str]) -> CliSettings:
    """Read once, at start.

    Raises:
        SettingsError: a value that cannot be.
    """
    url = environ.get("MCPFLEET_URL") or None
    if url is not None and not url.startswith(("http://", "https://")):
        raise SettingsError(f"MCPFLEET_URL is {url!r}, but must begin with http:// or https://")
    return CliSettings(state_dir=state_dir(environ), url=url, token=token_in(environ), environ=environ)


def state_dir(environ: Mapping[str, str]) -> Path:
    """`$MCPFLEET_STATE_DIR`, or `mcpfleet` under the XDG state directory.

    Source: XDG Base Directory Specification 0.8, `$XDG_STATE_HOME`.
    """
    named = environ.get("MCPFLEET_STATE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    return Path(environ.get("XDG_STATE_HOME") or home_of(environ) / ".local" / "state") / "mcpfleet"


def find_target(settings: CliSettings) -> Target:
    """The environment first, then the local fleet's state file.

    Raises:
        OrchestratorDown: neither names a fleet.
        NotAllowed: an address without a token.
    """
    local = read_fleet_file(settings.state_dir)
    if settings.url is None and local is not None:
        return Target(local.url, settings.token or local.token, f"{settings.state_dir}/fleet.json")
    if settings.url is None:
        raise OrchestratorDown(DEFAULT_URL, "MCPFLEET_URL is not set and no local fleet runs")
    token = settings.token or _token_of(local, settings.url)
    if token is None:
        raise NotAllowed(f"no token for {settings.url}; set MCPFLEET_TOKEN, or MCPFLEET_TOKEN_FILE to a file with it")
    return Target(settings.url.rstrip("/"), token, "MCPFLEET_URL")


def is_private(path: Path) -> bool:
    """Whether only its owner can read a file that holds a secret."""
    return not stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)


def _token_of(local: FleetFile | None, url: str) -> str | None:
    return local.token if local is not None and local.url.rstrip("/") == url.rstrip("/") else None
