"""A terminal's keys, one by one, and the terminal as it was afterwards, however it ends."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator

ESCAPE_S = 0.05
"""What follows an escape within this time belongs to it."""
_SEQUENCES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b": "esc"}
_KEYS = {b"\r": "enter", b"\n": "enter"}


@contextlib.contextmanager
def keys(descriptor: int) -> Iterator[Keyboard]:
    """Keys come at once and are not echoed; Ctrl-C stays a signal."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Keyboard:
    """What was pressed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pressed(self, within_s: float) -> str | None:
        """A key, by name or as it is; None: none in time. A terminal that went away presses q."""
        if not self._is_ready(within_s):
            return None
        read = os.read(self._descriptor, 1)
        if not read:
            return "q"
        if read != b"\x1b":
            return _KEYS.get(read) or read.decode(errors="replace")
        while len(read) < 3 and self._is_ready(ESCAPE_S):  # noqa: PLR2004 - the longest sequence known here
            read += os.read(self._descriptor, 1)
        return _SEQUENCES.get(read, "")

    def _is_ready(self, within_s: float) -> bool:
        return bool(select.select([self._descriptor], [], [], within_s)[0])
