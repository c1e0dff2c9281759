"""Where the command line finds AuthGuardian.

Owns the address that `guard connect` keeps. Never keeps a token: only the name of the file that holds one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cli.desk import Desk
from orchestrator.cli.exits import BadInput
from orchestrator.cli.settings import CliSettings, Target, find_target, is_private
from tasks.errors import NotAllowed

PATH = "/mcp/guard"
KEPT = "guard.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What `guard connect` remembers."""

    server: str
    token_file: str | None


def keep(settings: CliSettings, kept: Kept) -> Path:
    """For the next commands."""
    file = settings.state_dir / KEPT
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.write_text(json.dumps({"server": kept.server, "token_file": kept.token_file}) + "\n")
    return file


def kept(settings: CliSettings) -> Kept | None:
    """As it was kept; None where nothing was.

    Raises:
        BadInput: the file is not ours.
    """
    file = settings.state_dir / KEPT
    try:
        form = json.loads(file.read_text())
        return Kept(form["server"], form["token_file"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file} cannot be read ({error}); say `mcpfleet guard connect --server URL` again") from error


def address(text: str) -> str:
    """Of the fleet, whether or not the server's own path was written behind it.

    Raises:
        BadInput: it is no address.
    """
    if not text.startswith(("http://", "https://")):
        raise BadInput(f"--server is {text!r}, but must begin with http:// or https://")
    return text.rstrip("/").removesuffix(PATH)


def target_of(settings: CliSettings) -> Target:
    """The environment first, then what `guard connect` kept, then the local fleet.

    Raises:
        OrchestratorDown, NotAllowed, BadInput: none of them will do.
    """
    saved = None if settings.url is not None else kept(settings)
    if saved is None:
        return find_target(settings)
    token = settings.token or token_of(saved.token_file)
    if token is None:
        raise NotAllowed(f"no token for {saved.server}; set MCPFLEET_TOKEN, or connect again with --token-file")
    return Target(saved.server, token, KEPT)


def token_of(file: str | None) -> str | None:
    """What the file holds.

    Raises:
        BadInput: it cannot be read, or others can.
    """
    if file is None:
        return None
    path = Path(file).expanduser()
    try:
        token, is_safe = path.read_text().strip(), is_private(path)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--token-file {path}: {error}") from error
    if not is_safe:
        raise BadInput(f"--token-file {path} can be read by others: chmod 600 it")
    return token


def call(target: Target, tool: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """One tool's structured answer. Raises as `guard_session.called`."""
    from orchestrator.cli.guard_session import called

    return called(target, tool, arguments)


def read(target: Target, uri: str) -> dict[str, Any]:
    """One resource's content. Raises as `guard_session.called`."""
    from orchestrator.cli.guard_session import content_of

    return content_of(target, uri)


def server_of(desk: Desk) -> Target:
    """For a command."""
    return target_of(desk.settings)
