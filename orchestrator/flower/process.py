"""The Flower process: behind a password, on an inherited socket or an address of its own.

Started as `mcpfleet flower`, never through `celery -A`: that would put the working directory first on the
import path, where a stray `tasks/` would win. Broker address and password come through the environment or
files, which only this user can read.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import structlog

from orchestrator.flower.settings import PREFIX, FlowerSettings
from tasks.app import make_app
from tasks.settings import changed
from tasks.telemetry import configure, log_uncaught

COLUMNS = "name,kwargs,state,received,runtime,worker,retries"
ANSWER_S = 5.0
LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - asked, not listened on
log = structlog.get_logger("mcpfleet.process")


def serve(settings: FlowerSettings) -> None:
    """Serve until SIGTERM.

    Raises:
        SettingsError: no broker, no login, or half of what TLS needs; or not in their form.
        OSError: the address is taken.
    """
    broker, login, context = settings.broker_url(), settings.credentials(), settings.server_context()
    listening = listen(settings)
    _options(settings, login)

    from tornado.httpserver import HTTPServer

    configure("flower", service="mcpfleet-flower")
    log_uncaught()
    log.info("started", version=version("mcpfleet"), flower=version("flower"), settings=changed(settings))
    flower = _application(settings, broker, login)
    server = HTTPServer(flower, ssl_options=context)
    server.add_socket(listening)
    log.info("listening", address="{}:{}".format(*listening.getsockname()[:2]))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: flower.io_loop.add_callback_from_signal(flower.stop))
    flower.start()


def _application(settings: FlowerSettings, broker: str, login: tuple[str, str]) -> Any:  # noqa: ANN401 - untyped
    from flower.urls import settings as flowers
    from tornado.ioloop import IOLoop
    from tornado.options import options

    from orchestrator.flower.doors import GuardedFlower, NoInspector
    from orchestrator.flower.listening import FleetEvents, FleetState

    app, loop = make_app(broker), IOLoop.current()
    inspector = NoInspector(loop, app, 0.0)
    state = FleetState(workers_shown=inspector.workers, max_tasks_in_memory=settings.max_tasks)
    events = FleetEvents(app, loop, broker, state)
    flower = GuardedFlower(login, broker, capp=app, options=options, events=events, io_loop=loop, **flowers)
    flower.inspector = inspector
    return flower


def leave() -> None:
    """End at once: Flower's event thread sits in a blocking read of the broker and would hold the exit up."""
    logging.shutdown()
    os._exit(0)


def _options(settings: FlowerSettings, login: tuple[str, str]) -> None:
    from flower.command import extract_settings
    from tornado.options import options

    options.basic_auth = [":".join(login)]
    options.enable_events = False  # remote control is off on our workers: nobody listens
    options.max_tasks = settings.max_tasks
    options.tasks_columns = COLUMNS
    options.read_only = True
    options.purge_offline_workers = settings.purge_offline_s
    options.url_prefix = settings.url_prefix.strip("/") or None
    extract_settings()


def listen(settings: FlowerSettings) -> socket.socket:
    """The socket that was inherited, else a new one.

    Raises:
        OSError: the address is taken or none of this machine's.
    """
    if settings.listen_fd is not None:
        found = socket.socket(fileno=settings.listen_fd)
    else:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        found = socket.create_server((settings.host, settings.port), family=family)
    found.setblocking(False)  # noqa: FBT003 - Tornado accepts until it would block
    return found


def fault(settings: FlowerSettings, transport: httpx.BaseTransport | None = None) -> str:
    """Why the Flower that runs with these settings is not well; empty: it is.

    Also not well is one that answers without the password.
    """
    host = LOOPBACKS.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    try:
        scheme, context = ("http", None) if settings.tls_cert is None else ("https", pinned(settings.tls_cert))
    except OSError as error:
        return f"{PREFIX}TLS_CERT {settings.tls_cert} cannot be read: {error}"
    base = f"{scheme}://{host}:{settings.port}{prefix_of(settings)}"
    return fault_at(base, settings.credentials(), transport, context)


def pinned(cert: Path) -> ssl.SSLContext:
    """Believes this very certificate while its time is not over, whatever name it is asked under."""
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def fault_at(
    base: str,
    login: tuple[str, str],
    transport: httpx.BaseTransport | None = None,
    context: ssl.SSLContext | None = None,
) -> str:
    """The same of one at an address."""
    try:
        with httpx.Client(timeout=ANSWER_S, trust_env=False, transport=transport, verify=context or True) as http:
            well = http.get(f"{base}/healthcheck", auth=login)
            open_status = http.get(f"{base}/metrics").status_code
    except httpx.HTTPError as error:
        return f"{base} does not answer: {str(error) or type(error).__name__}"
    if well.status_code == httpx.codes.UNAUTHORIZED:
        return f"{base} does not take the login it was given"
    if not well.is_success:
        return f"{base} answers {well.status_code}"
    if open_status != httpx.codes.UNAUTHORIZED:
        return f"{base}/metrics answers {open_status} to anybody"
    return ""


def prefix_of(settings: FlowerSettings) -> str:
    """`/flower`, or nothing."""
    prefix = settings.url_prefix.strip("/")
    return f"/{prefix}" if prefix else ""
