"""What this process runs on: which boot of the machine, which version of ours."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Changes with every boot; a constant where the system has none (then no crash is noticed)."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def our_version() -> str:
    """Of the installed distribution."""
    try:
        return version("mcpfleet")
    except PackageNotFoundError:
        return "0+source"
