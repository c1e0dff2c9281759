"""Log lines: whatever an event holds, it becomes one line of JSON by the schema, and never an error."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import structlog

from tasks.errors import SettingsError
from tasks.invocation import Lane
from tasks.log_output import LogFile
from tasks.telemetry import bind_trace, log_uncaught
from tests.unit.log_lines import Lines

SCHEMA = jsonschema.Draft202012Validator(json.loads(files("tasks").joinpath("log_schema.json").read_text()))
TRACE, SPAN = "ab" * 16, "cd" * 8


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Where this process logs, for one test."""
    with Lines() as seen:
        yield seen


@pytest.mark.parametrize(
    "field", [{Lane.TOOLS: 1}, {("a", 1): 2}, {1: "one"}, object(), b"bytes", {"deep": {Lane.AGENTS: {1, 2}}}, 2**70]
)
def test_any_field_is_a_line(lines: Lines, field: object) -> None:
    """A node once ended because it logged how many calls each lane ran."""
    structlog.get_logger("mcpfleet.test").info("said", field=field)
    logging.getLogger("mcpfleet.other").warning("said %s", field)
    first, second = lines.read()
    assert (first["event"], first["process"]) == ("said", "test")
    assert second["level"] == "warning"


def test_every_line_has_the_form(lines: Lines) -> None:
    """Ours, libraries', warnings', tracebacks; with the names that docs/logs.md says."""
    log_uncaught()
    lines.log.info("called", invocation="inv-1", fence=2, node="a1", tool="git.git_log")
    structlog.get_logger().warning("unnamed")
    logging.getLogger("celery.worker").error("Cannot connect to %s", "redis://:pw@host/0")
    warnings.warn("old", stacklevel=1)
    try:
        raise ValueError("no")  # noqa: TRY301 - its traceback is what is tested
    except ValueError as error:
        lines.log.exception("failed", error=str(error))
        sys.excepthook(ValueError, error, error.__traceback__)
    thread = threading.Thread(target=lambda: 1 / 0, name="t")
    thread.start()
    thread.join()
    for line in lines.read():
        SCHEMA.validate(line)
    said = {line["event"]: line for line in lines.read()}
    assert said["called"]["invocation_id"] == "inv-1"
    assert said["unnamed"]["logger"].startswith("mcpfleet.")
    assert said["Cannot connect to redis://:[redacted]@host/0"]["logger"] == "celery.worker"
    assert "ZeroDivisionError" in said["thread_failed"]["exception"]
    assert said["process_failed"]["level"] == "critical"


async def test_a_trace_id_stays_with_its_own_call(lines: Lines) -> None:
    """After every await, in tasks that a call starts, and nowhere else."""
    met = asyncio.Barrier(3)

    async def call(number: int) -> None:
        bind_trace(f"{number:032x}", span_id=SPAN, invocation_id=f"inv-{number}", fence=1)
        for step in range(3):
            await met.wait()
            lines.log.info("step", number=number, step=step)
        await asyncio.create_task(child(number))

    async def child(number: int) -> None:
        await asyncio.to_thread(lines.log.info, "child", number=number)

    async with asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            group.create_task(call(number))
    lines.log.info("after")
    *of_calls, after = lines.read()
    assert len(of_calls) == 12
    assert all(line["trace_id"] == f"{line['number']:032x}" for line in of_calls)
    assert "trace_id" not in after


def test_a_call_without_a_trace_has_no_field(lines: Lines) -> None:
    """An empty field would not be the schema's."""
    bind_trace(None, invocation_id="inv-1")
    lines.log.info("said")
    [line] = lines.read()
    assert "trace_id" not in line
    SCHEMA.validate(line)


def test_a_file_rotates_and_keeps_so_many(tmp_path: Path) -> None:
    """Whole lines in each; the oldest go."""
    path = tmp_path / "logs" / "node.log"
    with Lines(stream=None, file=LogFile(path, rotate_bytes=2000, kept=2)) as seen:
        for number in range(60):
            seen.log.info("said", number=number)
            logging.getLogger("other").warning("said")
    found = sorted(path.parent.iterdir())
    assert [one.name for one in found] == ["node.log", "node.log.1", "node.log.2"]
    assert all(one.stat().st_size <= 2000 for one in found)
    for one in found:
        for line in one.read_text().splitlines():
            SCHEMA.validate(json.loads(line))


def test_a_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    """As logrotate does it, where no size is set."""
    path = tmp_path / "node.log"
    with Lines(stream=None, file=LogFile(path, rotate_bytes=0, kept=0)) as seen:
        seen.log.info("first")
        path.rename(tmp_path / "old")
        seen.log.info("second")
    assert [json.loads(one.read_text())["event"] for one in (tmp_path / "old", path)] == ["first", "second"]


def test_a_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """At the start, with its name: not when the first line is lost."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(SettingsError, match=r"node\.log"),
        Lines(stream=None, file=LogFile(tmp_path / "file" / "node.log", rotate_bytes=0, kept=0)),
    ):
        pass


def test_a_sink_hears_the_finished_line() -> None:
    """Redacted, with every field: OTLP sends what the file has."""
    told: list[dict[str, object]] = []
    out = io.StringIO()

    def sink(event: dict[str, object], size: int) -> None:
        told.append(event)
        assert size == len(json.dumps(event, separators=(",", ":")))

    with Lines(stream=out, sink=sink, service="mcpfleet-worker", node="a1") as seen:
        seen.log.info("said", token="x" * 20)
    assert (told[0]["event"], told[0]["token"], told[0]["node"]) == ("said", "[redacted]", "a1")
    SCHEMA.validate(told[0])
