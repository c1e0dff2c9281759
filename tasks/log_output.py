"""Where log lines are written: a stream, or a file that rotates."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import TextIO

from tasks.errors import SettingsError

Write = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of one process. Two processes that rotate one file lose lines."""

    path: Path
    rotate_bytes: int
    """A new file after so many; 0: never, and it is opened again when somebody moved it away."""
    kept: int
    """Old files that stay."""


def to_stream(out: TextIO) -> Write:
    """Whole lines, one after the other, whichever thread writes."""
    lock = threading.Lock()

    def write(line: str) -> None:
        with lock:
            out.write(line + "\n")
            out.flush()

    return write


def to_file(file: LogFile) -> Write:
    """Whole lines to a file.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        handler = _handler(file)
    except OSError as error:
        raise SettingsError(f"the log file {file.path} cannot be written ({error}); name another one") from error
    handler.setFormatter(logging.Formatter("%(message)s"))

    def write(line: str) -> None:
        handler.handle(logging.LogRecord("", logging.INFO, "", 0, line, None, None))

    return write


def _handler(file: LogFile) -> logging.Handler:
    if not file.rotate_bytes:
        return WatchedFileHandler(file.path, encoding="utf-8")
    return RotatingFileHandler(file.path, maxBytes=file.rotate_bytes, backupCount=file.kept, encoding="utf-8")
