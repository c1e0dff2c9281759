"""The command that runs a program in a world of its own: its files, no network, nobody else.

Pure: from what is wanted to bubblewrap's words. Refuses to start it, and to decide what is needed.
Source: bwrap(1) of bubblewrap 0.8.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import SettingsError

WORKSPACE = "/workspace"
HOME = str(Path("/", "home", "agent"))
EGRESS = "/run/mcpfleet/egress.sock"
REACH = "/run/mcpfleet/reach.sock"
USER_ID = 1000
"""Inside. Outside it is whoever runs the node: files that a run leaves belong to the node."""

_SYSTEM = ("/usr", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/alternatives", "/etc/ld.so.cache")
"""Nothing that holds a key: a node may run as root, and its own files are the agent's to read."""
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What one run sees of the machine."""

    workspace: Path
    home: Path
    egress: Path | None
    """The unix socket that leads to the model; None where nothing does."""
    read_only: Mapping[Path, str] = field(default_factory=dict)
    """Of the host, to where it is inside."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Beside HOME, PATH, USER and LANG."""
    entering: tuple[str, ...] = ()
    """Words before all others: what puts it under its run's limits. See `worker/confines`."""
    reach: Path | None = None
    """The unix socket that leads to the destinations of its project; None where it lists none."""


def find_bwrap() -> str:
    """Where bubblewrap is.

    Raises:
        SettingsError: it is not installed.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise SettingsError("bubblewrap is not installed, so no agent can be run: apt-get install bubblewrap")
    return found


def find_python() -> str:
    """Python as it is called inside.

    Raises:
        SettingsError: the system has none of its own.
    """
    found = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        raise SettingsError("a sandbox needs Python in /usr/bin: apt-get install python3")
    return found


def environ(sandbox: Sandbox) -> dict[str, str]:
    """The whole environment that bubblewrap itself is to be started with, and nothing else.

    What it was started with can be read inside, in /proc/1/environ, whatever it is told to clear; and its own
    words can be read by everybody outside.
    """
    path = "/usr/local/bin:/usr/bin:/bin"
    return {"HOME": HOME, "PATH": path, "USER": "agent", "LANG": "C.UTF-8", **sandbox.environ}


def command(bwrap: str, sandbox: Sandbox, program: tuple[str, ...]) -> list[str]:
    """The words to run `program` in it, to be started with `environ`. All of it ends with its parent."""
    words = [
        *sandbox.entering,
        bwrap,
        "--die-with-parent",
        "--new-session",  # no terminal to push characters into
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"),
        "--unshare-cgroup-try",
        *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", "sandbox"),
        *("--cap-drop", "ALL"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"),  # noqa: S108 - the sandbox's own
    ]
    for path in _SYSTEM:
        words += ["--ro-bind-try", path, path]
    for name in _LINKED:
        words += _root_entry(name)
    for outside, inside in sandbox.read_only.items():
        words += ["--ro-bind", str(outside), inside]
    words += ["--bind", str(sandbox.home), HOME, "--bind", str(sandbox.workspace), WORKSPACE]
    if sandbox.egress is not None:
        words += ["--bind", str(sandbox.egress), EGRESS]
    if sandbox.reach is not None:
        words += ["--bind", str(sandbox.reach), REACH]
    return [*words, "--chdir", WORKSPACE, "--", *program]


def _root_entry(name: str) -> list[str]:
    """`/bin` and its kind: links into /usr on merged systems, folders elsewhere."""
    path = Path("/", name)
    if path.is_symlink():
        return ["--symlink", str(path.readlink()).lstrip("/"), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []
