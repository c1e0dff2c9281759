"""Which MCP servers the local fleet runs: real ones that we did not write, where they are installed.

Looked for beside the interpreter, where `make servers` and `make node` put them, and on the PATH.
Refuses to install anything.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.local.statefile import write_text_private

FOLDERS = (".cache/servers/bin", ".cache/node/node_modules/.bin")
"""Below the directory that holds `.venv`."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An MCP server program that is there."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, object] = field(default_factory=dict)
    """ToolPolicy fields for all of its tools: these servers annotate few of them."""

    def entry(self) -> dict[str, object]:
        """Its value under `mcpServers`."""
        entry: dict[str, object] = {"command": self.command, "args": list(self.args)}
        return entry | ({"env": dict(self.env)} if self.env else {})


_READS = {"is_safe": True}


def search_path(path: str, executable: str = sys.executable) -> str:
    """PATH with the places of `make servers` first."""
    folder = Path(executable).parent
    root = folder.parent.parent
    places = [str(folder), *(str(root / name) for name in FOLDERS)]
    return os.pathsep.join([*places, path])


def discover(path: str) -> dict[str, Installed]:
    """What is installed, by server name."""
    wanted = (
        Installed("time", "mcp-server-time", policy=_READS),
        Installed("fetch", "mcp-server-fetch", policy=_READS),
        Installed("git", "mcp-server-git"),
        Installed("everything", "mcp-server-everything"),
    )
    found: dict[str, Installed] = {}
    for server in wanted:
        command = shutil.which(server.command, path=path)
        if command is not None:
            found[server.name] = Installed(server.name, command, server.args, server.env, server.policy)
    return found


def filesystem(path: str, folder: Path) -> Installed | None:
    """The npm filesystem server, which needs to know its folder."""
    command = shutil.which("mcp-server-filesystem", path=path)
    return None if command is None else Installed("files", command, (str(folder),))


def write_servers_file(path: Path, servers: list[Installed]) -> None:
    """The `mcpServers` form that MCP users have already, with our policies beside it."""
    form = {
        "mcpServers": {server.name: server.entry() for server in servers},
        "mcpfleet": {"tools": {f"{server.name}.*": dict(server.policy) for server in servers if server.policy}},
    }
    write_text_private(path, json.dumps(form, indent=2) + "\n")
