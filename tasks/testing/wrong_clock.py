"""Run a module with a wall clock that is wrong: `python -m tasks.testing.wrong_clock FILE MODULE WORDS...`.

FILE holds one double, by how many seconds `time.time` is ahead; whoever writes another one there makes the
clock jump. The monotonic clock is left alone, as NTP and operators leave it. Refuses to fake what is read
elsewhere than in Python's `time`: `datetime.now` and processes it starts keep the machine's time.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

_FORM = struct.Struct("d")
_NS_PER_S = 1_000_000_000


def set_ahead(file: Path, ahead_s: float) -> None:
    """From now on the clock of who runs with `file` is ahead by so much; negative: behind."""
    with file.open("r+b" if file.exists() else "w+b") as held:
        held.write(_FORM.pack(ahead_s))


def _wrong(file: Path) -> tuple[Callable[[], float], Callable[[], int]]:
    right = time.time
    with file.open("r+b") as held:
        shared = mmap.mmap(held.fileno(), _FORM.size)

    def wall_s() -> float:
        return right() + float(_FORM.unpack_from(shared)[0])

    return wall_s, lambda: int(wall_s() * _NS_PER_S)


if __name__ == "__main__":
    time.time, time.time_ns = _wrong(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
