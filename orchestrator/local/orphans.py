"""Processes that our children started and left behind: adopted, reaped, and ended with the fleet.

Linux only (PR_SET_CHILD_SUBREAPER, /proc); elsewhere a node's MCP servers end when their standard
input closes, and that is all. Source: prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from orchestrator.local.guard import children, descendants, is_zombie

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on we are the parent of every descendant whose own parent died."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own: set[int | None]) -> None:
    """Collect adopted ones that ended; those in `own` are somebody else's to collect."""
    for pid in children(os.getpid()):
        if pid not in own and is_zombie(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def end_orphans(but: int) -> None:
    """Kill every descendant that is left, except `but`: at this point nothing should be."""
    for pid in descendants(os.getpid()):
        if pid != but:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    reap_orphans({but})
