"""What this process logs, for a while, as the lines that it would write."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from typing import Any, Self

import structlog

from tasks import telemetry


class Lines:
    """Configured within `with`; as before after it."""

    def __init__(self, **how: Any) -> None:
        self._how, self.out = how, io.StringIO()

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._before = root.handlers[:], root.level, sys.excepthook, threading.excepthook
        telemetry.configure("test", **({"stream": self.out} | self._how))
        self.log = structlog.get_logger("mcpfleet.test")
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.handlers[:], level, sys.excepthook, threading.excepthook = self._before
        root.setLevel(level)
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        logging.captureWarnings(capture=False)

    def text(self) -> str:
        """All of it."""
        return self.out.getvalue()

    def read(self) -> list[dict[str, Any]]:
        """Line by line."""
        return [json.loads(line) for line in self.text().splitlines()]
