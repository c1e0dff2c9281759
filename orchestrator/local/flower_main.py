"""The Flower process: behind a password, on an inherited socket or an address of its own.

Started with `python -m`, never through `celery -A`: that would put the working directory first on
the import path, where a stray `tasks/` would win. The broker's address and the password come through
the environment, which only this user can read.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import version

import structlog

from tasks.app import make_app
from tasks.telemetry import configure, log_uncaught

log = structlog.get_logger("mcpfleet.process")
REDIS_URL, LOGIN, SOCKET_FD = "FLEET_FLOWER_REDIS_URL", "FLEET_FLOWER_LOGIN", "FLEET_FLOWER_FD"
BIND = "FLEET_FLOWER_BIND"
"""`host:port` to listen on where no socket is inherited: in a container, or on a machine of its own."""
BIND_DEFAULT = "127.0.0.1:5555"
MAX_TASKS = 20_000
"""Kept in memory, about 2 KB each; the ledger has all of them."""
COLUMNS = "name,kwargs,state,received,runtime,worker,retries"


def main(environ: Mapping[str, str]) -> None:
    """Serve until SIGTERM."""
    from flower.app import Flower
    from flower.command import extract_settings
    from flower.urls import settings
    from tornado.httpserver import HTTPServer
    from tornado.options import options

    configure("flower", service="mcpfleet-flower")
    log_uncaught()
    log.info("started", version=version("mcpfleet"), flower=version("flower"), settings=[])
    options.basic_auth = [environ[LOGIN]]
    options.enable_events = False  # remote control is off on our workers: nobody listens
    options.max_tasks = MAX_TASKS
    options.tasks_columns = COLUMNS
    options.read_only = True
    options.purge_offline_workers = 300
    extract_settings()
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)  # it asks workers that rightly do not answer
    flower = Flower(capp=make_app(environ[REDIS_URL]), options=options, **settings)
    server = HTTPServer(flower)
    server.add_socket(listening(environ))
    signal.signal(signal.SIGTERM, lambda *_: flower.io_loop.add_callback_from_signal(flower.stop))
    flower.start()


def listening(environ: Mapping[str, str]) -> socket.socket:
    """The socket that was inherited, else a new one on `FLEET_FLOWER_BIND`.

    Raises:
        ValueError: the address is not `host:port`.
    """
    if SOCKET_FD in environ:
        found = socket.socket(fileno=int(environ[SOCKET_FD]))
    else:
        address = environ.get(BIND, BIND_DEFAULT)
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"{BIND} is {address!r}; write host:port, such as {BIND_DEFAULT}")
        found = socket.create_server((host, int(port)))
    found.setblocking(False)  # noqa: FBT003 - Tornado accepts until it would block
    return found


if __name__ == "__main__":
    main(os.environ)
    sys.stdout.flush()
    # Flower's event thread sits in a blocking read of the broker and would hold the exit up.
    os._exit(0)
