"""What can go wrong between a node and an MCP server, in the fleet's own words.

Owns the translation of JSON-RPC and HTTP failures into `ErrorInfo`; what each class allows is
decided by `tasks/retry.py`. Refuses to retry anything here.

What the tool may have done decides the class: refused before it was handed over is `NOT_STARTED`,
handed over and then silence is `MAYBE_STARTED`, an answer that says no is `PERMANENT`.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
)

from tasks.errors import FleetError
from tasks.outcome import ErrorInfo, Failure

FAULT_KEY = "mcpfleet/fault"
"""Key in a JSON-RPC error's `data` under which our own transports say what happened below it."""
RENEWED_S = 2.5
"""Until a node whose server is being started again has said so in a renewal, and is passed by."""
MESSAGE_CHARS = 2000
"""A server's message is carried up to this length: it ends in logs, events and dead letters."""

_LOST_WORDS = ("Connection closed", "SSE stream ended", "SSE stream failed")
"""How the SDK words a connection that ended under a call; -32000 alone is also what servers send."""
_TOO_LARGE_WORDS = ("Server-sent event exceeded", "response body exceeded")


class UpstreamError(FleetError):
    """One call to a server failed. `info` says how, and what that allows."""

    code = "upstream_error"

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


@dataclass(frozen=True, slots=True)
class Fault:
    """What a transport met below JSON-RPC, on its way through the SDK in an error's `data`."""

    code: str
    message: str
    failure: Failure
    retry_after_s: float | None = None

    def data(self) -> dict[str, object]:
        """For `error.data`."""
        return {
            FAULT_KEY: {
                "code": self.code,
                "message": self.message,
                "failure": str(self.failure),
                "retry_after_s": self.retry_after_s,
            }
        }

    def rpc_json(self) -> bytes:
        """A JSON-RPC error response without an id; the SDK fills in the request's."""
        error = {"code": INTERNAL_ERROR, "message": self.message, "data": self.data()}
        return orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error})

    def info(self, server: str) -> ErrorInfo:
        """As the call's error."""
        return ErrorInfo(self.code, f"server {server}: {self.message}", self.failure, self.retry_after_s)


def not_started(code: str, message: str) -> UpstreamError:
    """The tool certainly did not run: repeating is safe."""
    return UpstreamError(ErrorInfo(code, message[:MESSAGE_CHARS], Failure.NOT_STARTED))


def maybe_started(code: str, message: str) -> UpstreamError:
    """The tool may have run."""
    return UpstreamError(ErrorInfo(code, message[:MESSAGE_CHARS], Failure.MAYBE_STARTED))


def permanent(code: str, message: str) -> UpstreamError:
    """Repeating cannot help."""
    return UpstreamError(ErrorInfo(code, message[:MESSAGE_CHARS], Failure.PERMANENT))


def unavailable(server: str, state: str, error: str | None) -> UpstreamError:
    """The server is not running on this node right now."""
    because = f": {error}" if error else ""
    return not_started("server_unavailable", f"server {server} is {state} on this node{because}")


def being_renewed(server: str) -> UpstreamError:
    """Its process is ended for a tool that did not stop, or for a new secret: soon there is another. Costs no try."""
    message = f"server {server} is being started again, because a tool of it did not stop or a secret of it changed"
    return UpstreamError(ErrorInfo("server_unavailable", message, Failure.WAIT_UNTIL, RENEWED_S))


def unknown_tool(tool: str) -> UpstreamError:
    """The node does not offer the tool (any more): another may, so repeating is safe and may help."""
    return not_started("tool_unavailable", f"this node does not offer the tool {tool!r} now")


def silent(server: str, why: str) -> UpstreamError:
    """Nothing was heard of the server for too long while the call ran; it is started again."""
    return maybe_started("silent", f"server {server}: {why}; it was given up and is started again")


def too_large(what: str, limit_bytes: int) -> UpstreamError:
    """A result over the limit: the tool ran, and would answer the same again."""
    message = f"the result of {what} is larger than {limit_bytes} bytes; let the tool write it to a file or page it"
    return permanent("result_too_large", message)


def from_rpc(server: str, tool: str, error: MCPError, *, limit_bytes: int) -> UpstreamError:
    """Translate a JSON-RPC error response, or the SDK's stand-in for one."""
    fault = _fault_in(error.data)
    if fault is not None:
        return UpstreamError(fault.info(server))
    what, text = f"{server}.{tool}", error.message
    if any(word in text for word in _TOO_LARGE_WORDS) and error.code in (PARSE_ERROR, CONNECTION_CLOSED):
        return too_large(what, limit_bytes)
    if error.code == PARSE_ERROR and "Connection closed" not in text:
        return permanent("bad_result", f"{what}: the answer is not JSON-RPC ({text})")
    if error.code == PARSE_ERROR or (error.code == CONNECTION_CLOSED and text.startswith(_LOST_WORDS)):
        return maybe_started("connection_lost", f"server {server}: the connection ended during the call ({text})")
    if error.code == INTERNAL_ERROR and text == "Server returned an error response":
        return maybe_started("server_error", f"server {server} answered with an HTTP error that is not JSON-RPC")
    if error.code == HEADER_MISMATCH:
        return not_started("tool_changed", f"server {server}: {text}; its tools are being listed again")
    if error.code == INVALID_PARAMS:
        return permanent("invalid_arguments", f"{what}: {text}")
    if error.code == METHOD_NOT_FOUND:
        return permanent("unknown_tool", f"{what}: {text}")
    return permanent("server_error", f"{what}: {text} (JSON-RPC error {error.code})")


def is_outage(data: object) -> bool:
    """This error's `data` comes from a transport of ours: not the server spoke. One that says that it is busy did."""
    fault = _fault_in(data)
    return fault is not None and fault.code != "server_busy"


def _fault_in(data: object) -> Fault | None:
    form = data.get(FAULT_KEY) if isinstance(data, dict) else None
    if not isinstance(form, dict):
        return None
    try:
        failure = Failure(form["failure"])
        return Fault(str(form["code"]), str(form["message"])[:MESSAGE_CHARS], failure, form.get("retry_after_s"))
    except (KeyError, ValueError):
        return None
