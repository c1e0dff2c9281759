"""Doctor: this machine and this installation: packages, limits, and what a node needs to run agents.

What a node needs is looked at only where a node's settings or a local fleet are.
"""

from __future__ import annotations

import ctypes
import resource
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from orchestrator.cli.checkup_exposure import is_shared
from orchestrator.cli.findings import Finding, Health
from orchestrator.cli.ownership import DISTRIBUTION

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
FILES_FAIL, FILES_WARN = 512, 1024
TOOLS = {
    "git": "apt-get install git: projects are cloned with it",
    "bwrap": "apt-get install bubblewrap: Claude Code and other agents run in its sandbox",
    "claude": "npm install -g @anthropic-ai/claude-code, unless no agent is to run here",
}
TIMEX_BYTES, TIME_ERROR = 512, 5
"""More than `struct timex` has on any platform; Linux, sys/timex.h."""
CGROUPS = Path("/sys/fs/cgroup")
CONNECT_S = 2.0
OTLP = ("MCPFLEET_OTLP_ENDPOINT", "MCPFLEET_NODE_OTLP_ENDPOINT")
OTLP_PORTS = {"http": 4318, "https": 4318, "grpc": 4317}


def check_dependencies(lock: Path | None) -> Iterator[Finding]:
    """Installed packages against what we ask for; against the lock where it is here."""
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return
    unmet = list(unmet_of(wanted, _installed))
    if unmet:
        mend = f"pip install --upgrade {DISTRIBUTION}, into an environment of its own"
        yield Finding(check="dependencies", health=FAIL, detail="; ".join(unmet), mend=mend)
        return
    apart = [] if lock is None or not lock.exists() else list(apart_of(lock.read_text(), _installed))
    if apart:
        few = ", ".join(apart[:5]) + (f" and {len(apart) - 5} more" if len(apart) > 5 else "")  # noqa: PLR2004
        detail = f"not as in {lock}: {few}"
        yield Finding(check="dependencies", health=WARN, detail=detail, mend="make setup")
        return
    yield Finding(check="dependencies", health=OK, detail=f"{len(wanted)} are there, as asked for")


def unmet_of(wanted: Iterable[str], version_of: Callable[[str], str | None]) -> Iterator[str]:
    """What is missing or of another version. Source: PEP 508."""
    for line in wanted:
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        found = version_of(asked.name)
        if found is None:
            yield f"{asked.name} is not installed"
        elif not asked.specifier.contains(found, prereleases=True):
            yield f"{asked.name} is {found}, wanted {asked.specifier}"


def apart_of(lock: str, version_of: Callable[[str], str | None]) -> Iterator[str]:
    """What is installed in another version than a lock file says, one `name==version ; marker` a line."""
    for line in lock.splitlines():
        try:
            locked = Requirement(line.rstrip(" \\"))
        except InvalidRequirement:
            continue  # a hash, a comment
        if locked.marker is not None and not locked.marker.evaluate({"extra": ""}):
            continue
        found = version_of(locked.name)
        if found is not None and not locked.specifier.contains(found, prereleases=True):
            yield f"{locked.name} {found} instead of {str(locked.specifier).removeprefix('==')}"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_limits() -> Iterator[Finding]:
    """Open files: each node, caller and stream is one."""
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def open_files(soft: int) -> Finding:
    """The limit of this shell, which what is started from it inherits."""
    health = OK if soft == resource.RLIM_INFINITY or soft >= FILES_WARN else WARN if soft >= FILES_FAIL else FAIL
    mend = "" if health is OK else "ulimit -n 65536, or LimitNOFILE=65536 in the unit"
    shown = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    return Finding(check="open files", health=health, detail=f"{shown} at once", mend=mend)


def check_time(environ: Mapping[str, str], unsynchronised: Callable[[], bool | None]) -> Iterator[Finding]:
    """Whether something keeps this machine's clock, where others go by it: one machine agrees with itself."""
    if not (is_shared(environ) or any(name.startswith("MCPFLEET_NODE_") for name in environ)):
        return
    found = unsynchronised()
    if found is None:
        yield Finding(check="time", health=SKIP, detail="the kernel does not say whether its clock is kept")
    elif found:
        mend = "timedatectl set-ntp true, or chrony: it is right until it drifts"
        yield Finding(check="time", health=WARN, detail="nothing keeps this machine's clock", mend=mend)
    else:
        yield Finding(check="time", health=OK, detail="the clock is kept by NTP or the like")


def is_unsynchronised() -> bool | None:
    """As the kernel has it; None: it does not say.

    Source: adjtimex(2): TIME_ERROR is what it returns while nothing has set the clock for long.
    """
    try:
        room = ctypes.create_string_buffer(TIMEX_BYTES)  # modes of 0: only read
        state = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state == TIME_ERROR


def check_node_tools(environ: Mapping[str, str], cgroups: Path = CGROUPS) -> Iterator[Finding]:
    """Where a node is to run: sandbox tools and control groups."""
    if not any(name.startswith("MCPFLEET_NODE_") for name in environ):
        return
    for name, mend in TOOLS.items():
        found = shutil.which(name, path=environ.get("PATH", ""))
        if found:
            yield Finding(check=f"tool {name}", health=OK, detail=found)
        else:
            yield Finding(check=f"tool {name}", health=WARN, detail="is not on the PATH", mend=mend)
    file = cgroups / "cgroup.controllers"
    missing = {"cpu", "memory", "pids"} - set(file.read_text().split() if file.exists() else ())
    if missing:
        detail = f"no control of {', '.join(sorted(missing))} in {cgroups}"
        mend = "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1): else runs have no limits of their own"
        yield Finding(check="cgroups", health=WARN, detail=detail, mend=mend)
    else:
        yield Finding(check="cgroups", health=OK, detail="version 2, with cpu, memory and pids")


def check_otlp(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Where traces and logs are to go, if anywhere."""
    for name in OTLP:
        url = environ.get(name)
        if not url:
            continue
        parts = urlsplit(url if "://" in url else f"grpc://{url}")
        port = parts.port or OTLP_PORTS.get(parts.scheme, 4317)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S).close()
        except OSError as error:
            mend = f"start the collector, or correct {name}: until then traces and logs are dropped"
            detail = f"{parts.hostname}:{port} does not answer: {error}"
            yield Finding(check="otlp", health=WARN, detail=detail, mend=mend)
        else:
            yield Finding(check="otlp", health=OK, detail=f"{parts.hostname}:{port} takes connections")
