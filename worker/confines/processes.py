"""Processes by number: who descends from whom, what they were started with, and their certain end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil

PROC = Path("/proc")


def family_of(pid: int) -> set[int]:
    """It and all that descend from it."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return {pid}


def command_lines() -> Iterator[tuple[int, list[str]]]:
    """Of every process that can be seen."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            words = words_of(int(entry.name))
            if words:
                yield int(entry.name), words


def words_of(pid: int) -> list[str]:
    """What it was started with; nothing where it is gone, or a zombie."""
    try:
        said = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return said.decode(errors="replace").split("\0")[:-1]


def killed(pid: int, words: list[str] | None = None) -> bool:
    """SIGKILL. With `words`: only if it still is who was started with them."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if words is not None and words_of(pid) != words:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True
        return False
    finally:
        os.close(handle)
