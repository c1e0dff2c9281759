"""What the exit status of `mcpfleet` means. Documented in docs/cli.md.

Owns the numbers and who gets which; refuses to print.
"""

from __future__ import annotations

from enum import IntEnum

from tasks.errors import (
    FleetError,
    InvalidCall,
    LedgerDown,
    NotAllowed,
    NotFound,
    OrchestratorDown,
    SettingsError,
    UnknownTool,
)
from tasks.invocation import State


class Exit(IntEnum):
    """Constant numbers: scripts depend on them."""

    OK = 0
    FAILED = 1
    """The tool said `isError`, the Invocation failed, or a check did not pass."""
    USAGE = 2
    """The command line or the call itself is wrong; nothing was accepted."""
    NOT_FOUND = 3
    CANCELLED = 4
    EXPIRED = 5
    LOST = 6
    """It may have started, and its effect is unknown."""
    STILL_RUNNING = 7
    """`--wait` was over before the Invocation ended; it goes on."""
    UNAVAILABLE = 69
    """No orchestrator answers. Source: sysexits.h, EX_UNAVAILABLE."""
    NOT_ALLOWED = 77
    """No token, or not this one. Source: sysexits.h, EX_NOPERM."""
    INTERRUPTED = 130
    """Ctrl-C. Source: 128 + SIGINT."""


_BY_STATE = {
    State.SUCCEEDED: Exit.OK,
    State.FAILED: Exit.FAILED,
    State.CANCELLED: Exit.CANCELLED,
    State.EXPIRED: Exit.EXPIRED,
    State.LOST: Exit.LOST,
}


class BadInput(FleetError):
    """What was typed cannot be understood."""

    code = "bad_input"
    http_status = 400


class NotTrusted(OrchestratorDown):
    """Somebody answers there, with a certificate that nobody we know has signed."""

    def __init__(self, url: str, detail: str) -> None:
        FleetError.__init__(
            self,
            f"the certificate of {url} is not trusted ({detail}); set SSL_CERT_FILE to a file with what `mcpfleet ca` "
            "prints where the orchestrator runs",
        )


class Refused(FleetError):
    """The orchestrator answered with a problem; `status` and `code` are its words."""

    def __init__(self, detail: str, *, status: int, code: str) -> None:
        super().__init__(detail)
        self.status, self.problem_code = status, code


def of_state(state: State) -> Exit:
    """Status for an Invocation that stands at `state`."""
    return _BY_STATE.get(state, Exit.STILL_RUNNING)


def of_error(error: FleetError) -> Exit:
    """Status for an error that ended the command."""
    match error:
        case Refused():
            return _of_status(error.status)
        case OrchestratorDown() | LedgerDown():
            return Exit.UNAVAILABLE
        case NotAllowed():
            return Exit.NOT_ALLOWED
        case NotFound() | UnknownTool():
            return Exit.NOT_FOUND
        case BadInput() | InvalidCall() | SettingsError():
            return Exit.USAGE
        case _:
            return Exit.FAILED


def _of_status(status: int) -> Exit:
    match status:
        case 401 | 403:
            return Exit.NOT_ALLOWED
        case 404 | 410:
            return Exit.NOT_FOUND
        case 400 | 413 | 415 | 422:
            return Exit.USAGE
        case 429 | 502 | 503 | 504:
            return Exit.UNAVAILABLE
        case _:
            return Exit.FAILED
