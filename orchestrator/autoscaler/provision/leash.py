"""`python -m …provision.leash FOLDER PROGRAM WORD…`: runs a program for as long as its starter lives.

The starter holds the other end of our standard input. When that closes, because the starter was killed with
no time for anything, every process of the program is killed and FOLDER, which holds secrets, is removed. While
the starter lives it does the ending itself: SIGTERM is left to the program, and its exit status is ours.

Refuses to end the program for any other reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import psutil

PR_SET_CHILD_SUBREAPER = 36
"""Source: prctl(2)."""
KILLED = 137
ROUNDS = 100
"""Of killing: who forks while it is looked at is met in the next one."""
WORDS_MIN = 2


def main(words: Sequence[str]) -> int:
    """Exit status: the program's, 128 and the signal's number where one ended it; 2: we were called wrongly."""
    if len(words) < WORDS_MIN:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folder, *command = words
    _keep_orphans()
    # A handler, not SIG_IGN, which the program would inherit.
    signal.signal(signal.SIGTERM, _leave_it)
    watch = threading.Thread(target=_watch, args=(folder,), daemon=True)
    watch.start()
    status = subprocess.Popen(command, stdin=subprocess.DEVNULL).wait()
    if _is_alone():
        watch.join()  # it has more to do than to end this one, and ends us
    return status if status >= 0 else 128 - status


def _watch(folder: str) -> None:
    """The starter never writes: that there is nothing more to read means that it is gone."""
    os.read(sys.stdin.fileno(), 1)
    for _ in range(ROUNDS):
        family = psutil.Process().children(recursive=True)
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        if not psutil.wait_procs(family, timeout=1)[1] and not psutil.Process().children():
            break
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(KILLED)


def _is_alone() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _leave_it(number: int, frame: FrameType | None) -> None:
    """The whole group got it, and the program with it."""


def _keep_orphans() -> None:
    """Who loses its parent becomes our child, and is found: Ansible's workers and ssh lead sessions of their own.

    Only Linux can; elsewhere those whose parent still lives are found.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
