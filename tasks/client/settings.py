"""Where a client finds its fleet. The only place of the client that reads the environment.

What is passed wins, then `MCPFLEET_URL` and `MCPFLEET_TOKEN` (or `MCPFLEET_TOKEN_FILE`), then the file that
`mcpfleet up` writes (`fleet.json` under `MCPFLEET_STATE_DIR`, by default the XDG state directory).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NotAllowed, OrchestratorDown, SettingsError

DEFAULT_URL = "http://127.0.0.1:8700"
"""Named in errors where nothing is set and no local fleet runs."""
STATE_FILE = "fleet.json"
OTHERS = stat.S_IRWXG | stat.S_IRWXO
MOUNTED = ("/run/secrets/", "/run/credentials/", "/var/run/secrets/")
"""Docker, systemd and Kubernetes put secrets here for one container or service, often readable to all inside it."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One orchestrator and the token it knows us by."""

    url: str
    token: str

    def __repr__(self) -> str:
        """Without the token."""
        return f"ClientSettings(url={self.url!r})"


def find(
    url: str | None = None, token: str | None = None, *, environ: Mapping[str, str] = os.environ
) -> ClientSettings:
    """The fleet to talk to.

    A token found in the state file is used for the address found there only: it must not be sent
    to another.

    Raises:
        OrchestratorDown: nothing names a fleet.
        NotAllowed: an address without a token.
        SettingsError: an address or a state file that cannot be read.
    """
    url, token = url or environ.get("MCPFLEET_URL") or None, token or token_in(environ)
    local = _local(state_file(environ)) if url is None or token is None else {}
    if url is None:
        url = local.get("url")
    if url is None:
        raise OrchestratorDown(DEFAULT_URL, "MCPFLEET_URL is not set and no local fleet runs")
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"the fleet's address is {url!r}, but must begin with http:// or https://")
    if token is None and local.get("url", "").rstrip("/") == url.rstrip("/"):
        token = local.get("token")
    if token is None:
        raise NotAllowed(f"no token for {url}; set MCPFLEET_TOKEN or MCPFLEET_TOKEN_FILE, or pass token=")
    return ClientSettings(url.rstrip("/"), token)


def token_in(environ: Mapping[str, str]) -> str | None:
    """`MCPFLEET_TOKEN`, else what is in the file that `MCPFLEET_TOKEN_FILE` names: a key that is rotated stays there.

    Raises:
        SettingsError: what is there cannot be a token, that file cannot be read, is empty, or others can read it.
    """
    if token := environ.get("MCPFLEET_TOKEN"):
        if not (token.isascii() and token.isprintable()):  # it goes into a header
            raise SettingsError("MCPFLEET_TOKEN has characters that no token has; copy it again")
        return token
    if not (named := environ.get("MCPFLEET_TOKEN_FILE")):
        return None
    path = Path(named).expanduser()
    try:
        text, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"MCPFLEET_TOKEN_FILE: {named} cannot be read: {why}; name a file with the token"
        ) from error
    if not text:
        raise SettingsError(f"MCPFLEET_TOKEN_FILE: {named} is empty; put an API key into it")
    if not text.isprintable():
        raise SettingsError(f"MCPFLEET_TOKEN_FILE: {named} has more in it than one token; put one API key into it")
    if mode & OTHERS and not _is_shut_in(path) and not str(path.absolute()).startswith(MOUNTED):
        raise SettingsError(
            f"MCPFLEET_TOKEN_FILE: {named} can be read by others (mode {stat.S_IMODE(mode):04o}); chmod 600 it, and "
            "revoke the key if they may have"
        )
    return text


def _is_shut_in(path: Path) -> bool:
    """Its folder lets nobody else in, so its own mode lets nobody read it: Compose needs 0444 there."""
    return not path.resolve().parent.stat().st_mode & OTHERS


def state_file(environ: Mapping[str, str]) -> Path:
    """Where `mcpfleet up` says what it started. Source: XDG Base Directory Specification 0.8."""
    named = environ.get("MCPFLEET_STATE_DIR")
    if named:
        return Path(named).expanduser() / STATE_FILE
    return Path(environ.get("XDG_STATE_HOME") or home_of(environ) / ".local" / "state") / "mcpfleet" / STATE_FILE


def home_of(environ: Mapping[str, str]) -> Path:
    """The user's folder; the root for a user that has none, as a service's own that exists while it runs."""
    try:
        return Path(environ.get("HOME") or "~").expanduser()
    except RuntimeError:  # pathlib's, where no entry of the password file names one
        return Path("/")


def _local(path: Path) -> dict[str, str]:
    try:
        form = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}); remove it, or set MCPFLEET_URL and MCPFLEET_TOKEN"
        ) from error
    if not isinstance(form, dict):
        raise SettingsError(f"{path} is not what `mcpfleet up` writes; remove it")
    return {name: value for name in ("url", "token") if isinstance(value := form.get(name), str)}
