"""What a node tells the service manager that started it: ready, leaving, alive.

Owns the datagrams of `sd_notify(3)`, on a plain socket. Refuses to matter: without a service manager,
or with one that does not listen, a node runs all the same.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import MutableMapping
from typing import NoReturn

import structlog

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
SILENT_S = 3600.0
"""Between two words where no watchdog listens."""
_log = structlog.get_logger()


class Supervisor:
    """systemd, as its `Type=notify` unit sees this process.

    Args:
        address: of its socket: a path, or `@name` in the abstract namespace; empty: nobody listens.
        watchdog_s: it ends a process that is silent for so long; 0: it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else 0.0

    def ready(self, status: str) -> None:
        """The node has joined: what was started after it may come."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """The node drains."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """The event loop moves."""
        self._tell("WATCHDOG=1")

    async def keep_alive(self) -> NoReturn:
        """Say so twice per watchdog interval, on the loop that it vouches for, until cancelled.

        Source: sd_watchdog_enabled(3) recommends half the interval.
        """
        while True:
            if self.watchdog_s:
                self.alive()
            await asyncio.sleep(self.watchdog_s / 2 or SILENT_S)

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                # A full socket must not stop the loop whose life is reported.
                wire.sendto(words.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            _log.warning("supervisor_not_told", words=words.partition("\n")[0], detail=str(error))


def supervisor_of(environ: MutableMapping[str, str], pid: int) -> Supervisor:
    """The one that started this process. Takes its variables away: MCP servers are not to speak for the node.

    Args:
        environ: usually `os.environ`.
        pid: our own; a watchdog that was meant for another process is not fed.
    """
    address = environ.pop(SOCKET_VARIABLE, "")
    interval_us = environ.pop(WATCHDOG_VARIABLE, "")
    meant_for = environ.pop(WATCHDOG_PID_VARIABLE, "")
    is_ours = meant_for in ("", str(pid)) and interval_us.isdecimal()
    return Supervisor(address, int(interval_us) / 1e6 if is_ours else 0.0)
