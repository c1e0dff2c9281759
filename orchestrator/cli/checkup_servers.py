"""Doctor: can the MCP servers of a servers file be started here?

Reads the file by its public `mcpServers` form only; the node checks the rest when it starts.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.cli.findings import Finding, Health


def check_servers(path: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """A finding per server of the file at `path`."""
    try:
        form = json.loads(path.read_text())
        servers = form["mcpServers"].items()
    except OSError as error:
        mend = "give --servers the path of a file in the mcpServers form"
        yield Finding(check="servers", health=Health.FAIL, detail=f"{path}: {error.strerror}", mend=mend)
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        mend = 'write {"mcpServers": {"name": {"command": "…", "args": []}}}'
        yield Finding(
            check="servers", health=Health.FAIL, detail=f"{path} is not in the mcpServers form: {error!r}", mend=mend
        )
        return
    if not servers:
        yield Finding(check="servers", health=Health.WARN, detail=f"{path} names no server")
    for name, entry in servers:
        yield _server(str(name), entry if isinstance(entry, dict) else {}, environ)


def _server(name: str, entry: dict[str, object], environ: Mapping[str, str]) -> Finding:
    check = f"server {name}"
    if "url" in entry:
        return Finding(check=check, health=Health.OK, detail=f"over HTTP at {entry['url']}; not asked")
    command = str(entry.get("command") or "")
    if not command:
        return Finding(check=check, health=Health.FAIL, detail="has neither command nor url", mend="give it one")
    env = entry.get("env")
    path = env.get("PATH") if isinstance(env, dict) else None
    found = shutil.which(os.path.expandvars(command), path=str(path or environ.get("PATH", "")))
    if found is None:
        mend = "install it, or write its whole path"
        return Finding(check=check, health=Health.FAIL, detail=f"the command {command} is not on the PATH", mend=mend)
    cwd = entry.get("cwd")
    if cwd and not Path(str(cwd)).is_dir():
        return Finding(
            check=check, health=Health.FAIL, detail=f"its cwd {cwd} is not there", mend="make it, or correct cwd"
        )
    return Finding(check=check, health=Health.OK, detail=found)
