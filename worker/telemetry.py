"""Begins a node's logs and, where a collector is named, its spans; says that it started, and how."""

from __future__ import annotations

import structlog

from tasks.log_output import LogFile
from tasks.otlp import Otlp, OtlpTarget, begin_otlp
from tasks.settings import changed
from tasks.telemetry import configure, log_uncaught
from worker.machine import our_version
from worker.settings import NodeSettings

_log = structlog.get_logger("mcpfleet.process")
SERVICE = "mcpfleet-worker"


def begin_telemetry(settings: NodeSettings) -> Otlp | None:
    """Once per process, first of all.

    Raises:
        SettingsError: a file of the log or of headers cannot be used.
    """
    name = settings.name
    target = OtlpTarget(
        settings.otlp_endpoint,
        SERVICE,
        name,
        our_version(),
        settings.trace_ratio,
        settings.otlp_headers_file,
        settings.otlp_ca_file,
        settings.otlp_gzip,
    )
    otlp = begin_otlp(target)
    file = LogFile(settings.log_file, settings.log_file_bytes, settings.log_files_kept) if settings.log_file else None
    sink = otlp.line if otlp is not None and settings.log_otlp else None
    configure(f"node {name}", service=SERVICE, level=settings.log_level, file=file, node=name, sink=sink)
    log_uncaught()
    _log.info("started", version=our_version(), settings=changed(settings))
    return otlp
