"""Log lines: whatever an event holds, it becomes one line of JSON and never an error."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from tasks import telemetry
from tasks.invocation import Lane


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where this process logs, for one test."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    telemetry.configure("test", stream=out)
    yield out
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    "field", [{Lane.TOOLS: 1}, {("a", 1): 2}, {1: "one"}, object(), b"bytes", {"deep": {Lane.AGENTS: {1, 2}}}, 2**70]
)
def test_any_field_is_a_line(lines: io.StringIO, field: object) -> None:
    """A node once ended because it logged how many calls each lane ran."""
    structlog.get_logger("mcpfleet.test").info("said", field=field)
    logging.getLogger("mcpfleet.other").warning("said %s", field)
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["event"], first["process"]) == ("said", "test")
    assert second["level"] == "warning"
