"""A child's log: written by the child itself, kept within bounds by us.

The child appends to the file directly, so that its logs need no living parent; a file over the
limit is copied to `.1` and emptied (as logrotate's copytruncate: lines written in between are lost).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

LIMIT_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 64 * 1024
_SECRETS = re.compile(r"(://[^:@/\s]*:)[^@/\s]+(?=@)|(sentinel_password=)[^&\s'\"]+")


class LogFile:
    """One file, opened for appending by each start of its child."""

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._read_to = 0

    def open(self) -> int:
        """A descriptor for the child, mode 0600; what was there before stays."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._read_to = os.fstat(descriptor).st_size
        return descriptor

    def bound(self) -> None:
        """Rotate when it is over the limit."""
        try:
            if self.path.stat().st_size <= self._limit_bytes:
                return
            older = self.path.with_name(f"{self.path.name}.1")
            older.write_bytes(self.path.read_bytes()[-self._limit_bytes :])
            older.chmod(0o600)
            os.truncate(self.path, 0)
        except FileNotFoundError:
            return
        self._read_to = 0

    def new_lines(self) -> list[str]:
        """Whole lines since the last call, for `--verbose`."""
        try:
            with self.path.open("rb") as file:
                file.seek(min(self._read_to, os.fstat(file.fileno()).st_size))
                data = file.read(TAIL_BYTES)
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        return masked(whole.decode(errors="replace")).splitlines()

    def tail(self, lines: int) -> str:
        """The last lines, passwords in addresses masked."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return masked("\n".join(text.splitlines()[-lines:]))


def masked(text: str) -> str:
    """Text with the password of every address replaced by stars."""
    return _SECRETS.sub(r"\1\2***", text)
