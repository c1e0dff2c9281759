"""Logs: one JSON line per event on stderr, with the trace id of the call they belong to.

`configure` is called once per process, by its bootstrap. Standard-library loggers (celery, kombu,
uvicorn, httpx) pass through the same lines. Refuses arguments, results and local variables: a
traceback is text without locals, because locals hold both.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import orjson
import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

QUIET_LIBRARIES = ("kombu", "celery", "amqp", "httpx", "httpcore", "uvicorn", "mcp", "asyncio", "alembic")
"""Loggers that speak at INFO about each message or request: only their warnings are shown."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(process: str, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log event of this process to `stream` as JSON lines.

    Args:
        process: which of our processes this is, e.g. `node a1`; a field of each line.
        level: debug, info, warning or error.
        stream: stderr when absent. stdout belongs to MCP over stdio and to `--json`.
    """
    out = stream or sys.stderr
    number = LEVELS[level]
    shared: list[Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _stamp(process),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def bind_trace(trace_id: str | None, **fields: str | int) -> None:
    """Put the trace id on every later event of this asyncio task (or thread)."""
    bind_contextvars(trace_id=trace_id, **fields)


def _stamp(process: str) -> Processor:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return stamp


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # no field may cost the program more than its own legibility
        return orjson.dumps({str(key): str(value) for key, value in event.items()}).decode()
