"""Logs: one JSON line per event, with the trace id of the call it belongs to. The form: docs/logs.md.

`configure` is called once per process, by its bootstrap. Standard-library loggers (celery, kombu,
uvicorn, httpx) pass through the same lines. Refuses arguments, results and local variables: a
traceback is text without locals, because locals hold both. Secrets are taken out by `tasks/redaction.py`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

import orjson
import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from tasks.log_output import LogFile, Write, to_file, to_stream
from tasks.redaction import redact_field

QUIET_LIBRARIES = (
    "kombu", "celery", "amqp", "httpx", "httpcore", "uvicorn", "mcp", "asyncio", "alembic", "tornado.access",
    "urllib3", "requests", "flower",
)  # fmt: skip
"""Loggers that speak at INFO about each message or request: only their warnings are shown."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
OURS = "mcpfleet."

Sink = Callable[[EventDict, int], None]
"""Told a finished event, and how many characters its line has."""


def configure(
    process: str,
    *,
    service: str = "mcpfleet",
    level: str = "info",
    stream: TextIO | None = None,
    file: LogFile | None = None,
    node: str | None = None,
    sink: Sink | None = None,
) -> None:
    """Send every log event of this process somewhere as JSON lines.

    Args:
        process: which of our processes this is, e.g. `node a1`; a field of each line.
        service: which program it is, as in its traces.
        level: debug, info, warning or error.
        stream: stderr when absent. stdout belongs to MCP over stdio and to `--json`.
        file: instead of the stream.
        node: name of the node that this process is.
        sink: told each finished event too; must not block, raise or log.

    Raises:
        SettingsError: the file cannot be written.
    """
    write = to_stream(stream or sys.stderr) if file is None else to_file(file)
    number = LEVELS[level]
    stamp = _stamp(process, service, node)
    before: list[Processor] = [merge_contextvars, structlog.processors.add_log_level]
    after: list[Processor] = [stamp, structlog.processors.format_exc_info, _finished, _render(sink)]
    structlog.configure(
        processors=[*before, _named, *after],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Lines(write),
        cache_logger_on_first_use=True,
    )
    handler = _Foreign(write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
        )
    )
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def log_uncaught() -> None:
    """What would end the process, or a thread, with a bare traceback on stderr is an event too."""
    log = structlog.get_logger("mcpfleet.process")

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            log.critical("process_failed", error=str(error), exc_info=(kind, error, trace))
        else:
            sys.__excepthook__(kind, error, trace)

    def of_thread(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread else ""
        log.error("thread_failed", thread=name, error=str(args.exc_value), exc_info=args.exc_value)

    sys.excepthook, threading.excepthook = of_process, of_thread


def bind_trace(trace_id: str | None, *, span_id: str | None = None, **fields: str | int) -> None:
    """Put the trace id on every later event of this asyncio task (or thread), and of tasks that it starts.

    Args:
        trace_id: None where the call has none; nothing is written then.
        span_id: of the span that this task's work is.
        fields: further fields of each line.
    """
    ids = {name: value for name, value in (("trace_id", trace_id), ("span_id", span_id)) if value}
    bind_contextvars(**ids, **fields)


class _Line:
    """A logger: writes what the processors made. Knows its name."""

    def __init__(self, name: str, write: Write) -> None:
        self.name, self._write = name, write

    def msg(self, line: str) -> None:
        self._write(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _Lines:
    """Makes loggers. One without a name has that of the module which uses it first."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._found = structlog.stdlib.LoggerFactory(ignore_frame_names=[__name__])

    def __call__(self, *args: object) -> _Line:
        name = str(args[0]) if args else self._found().name
        return _Line(name if name.startswith(OURS) else f"{OURS}{name}", self._write)


class _Foreign(logging.Handler):
    """Events of standard-library loggers, through the same lines."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """One record; what cannot be written is said on stderr by the standard library."""
        try:
            self._write(self.format(record))
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError):
            self.handleError(record)


def _stamp(process: str, service: str, node: str | None) -> Processor:
    now, pid = structlog.processors.TimeStamper(fmt="iso", utc=True), os.getpid()

    def stamp(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["service"], event["process"], event["pid"] = service, process, pid
        if node is not None:
            event.setdefault("node", node)
        if "invocation" in event:  # the word in code; the field's name says that it is an id
            event["invocation_id"] = event.pop("invocation")
        return now(logger, method, event)

    return stamp


def _named(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


_FIRST = ("timestamp", "level", "service", "process", "pid", "logger")
_OWN = frozenset({*_FIRST, "event"})


def _finished(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """In the order in which people read a line, without secrets."""
    line = {name: event[name] for name in _FIRST}
    line["event"] = redact_field("event", event.get("event"))
    for name, value in event.items():
        if name not in _OWN:
            line[str(name)] = redact_field(str(name), value)
    return line


def _render(sink: Sink | None) -> Callable[[WrappedLogger, str, EventDict], str]:
    def render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
        try:
            line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # no field may cost the program more than its own legibility
            line = orjson.dumps({str(key): str(value) for key, value in event.items()}).decode()
        if sink is not None:
            sink(event, len(line))
        return line

    return render
