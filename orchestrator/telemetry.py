"""Begins the orchestrator's logs and, where a collector is named, its spans; says that it started, and how."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version

import structlog

from orchestrator.settings import OrchestratorSettings
from tasks.log_output import LogFile
from tasks.otlp import Otlp, OtlpTarget, begin_otlp
from tasks.settings import changed
from tasks.telemetry import configure, log_uncaught

log = structlog.get_logger("mcpfleet.process")
SERVICE = "mcpfleet-orchestrator"


def begin_telemetry(settings: OrchestratorSettings) -> Otlp | None:
    """Once per process, first of all.

    Raises:
        SettingsError: a file of the log or of headers cannot be used.
    """
    target = OtlpTarget(
        settings.otlp_endpoint,
        SERVICE,
        f"{socket.gethostname()}:{os.getpid()}",
        version("mcpfleet"),
        settings.trace_ratio,
        settings.otlp_headers_file,
        settings.otlp_ca_file,
        settings.otlp_gzip,
    )
    otlp = begin_otlp(target)
    file = LogFile(settings.log_file, settings.log_file_bytes, settings.log_files_kept) if settings.log_file else None
    sink = otlp.line if otlp is not None and settings.log_otlp else None
    configure("orchestrator", service=SERVICE, level=settings.log_level.lower(), file=file, sink=sink)
    log_uncaught()
    log.info("started", version=target.version, settings=changed(settings))
    return otlp
