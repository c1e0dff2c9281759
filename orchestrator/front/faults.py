"""How our errors and bad endings look to an MCP client.

What a model can mend by calling again differently is a tool result with `isError`, so that the
model sees it; everything else is a JSON-RPC error. Source: MCP 2025-11-25 and later, Tools, Error
handling (input validation errors are tool execution errors, SEP-1303; unknown tools are -32602).
"""

from __future__ import annotations

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from orchestrator.front.exact_json import read
from orchestrator.front.meta import INVOCATION_KEY
from tasks.errors import FleetError, InvalidArguments, InvalidCall, NotAllowed, NotFound, PayloadTooLarge, Retryable
from tasks.invocation import Invocation

_CODES = {"invalid_arguments": INVALID_PARAMS, "unknown_tool": INVALID_PARAMS}
"""JSON-RPC codes of what the tool's own server said; anything else that went wrong is -32603."""
MENDABLE = (InvalidArguments, PayloadTooLarge)
"""Errors that a model can mend."""


def tool_error(text: str, **meta: object) -> dict[str, Any]:
    """A CallToolResult that says what went wrong."""
    result: dict[str, Any] = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": True}
    if meta:
        result["_meta"] = meta
    return result


def refused(error: FleetError) -> MCPError:
    """One of our errors as a JSON-RPC error; `data.code` is our constant word for it."""
    code = INTERNAL_ERROR
    if isinstance(error, InvalidCall | NotFound):
        code = INVALID_PARAMS
    elif isinstance(error, NotAllowed):
        code = INVALID_REQUEST
    return MCPError(code, error.message, {"code": error.code, "retryable": isinstance(error, Retryable)})


def rpc_error(invocation: Invocation) -> dict[str, Any]:
    """A terminal Invocation that has no result, as the members of a JSON-RPC error."""
    outcome = invocation.outcome
    error = outcome.error if outcome else None
    message = error.message if error else f"the call {invocation.state}"
    data = {
        "code": error.code if error else str(invocation.state),
        "ending": str(invocation.state),
        "invocation": invocation.id,
    }
    if error is not None:
        data["failure"] = str(error.failure)
    return {"code": _CODES.get(data["code"], INTERNAL_ERROR), "message": message, "data": data}


def answer_of(invocation: Invocation, result_json: str | None) -> dict[str, Any]:
    """The tool's own result as it came, with the Invocation's id added to its `_meta`.

    Raises:
        MCPError: it ended without a result.
    """
    if result_json is None:
        error = rpc_error(invocation)
        raise MCPError(error["code"], error["message"], error["data"])
    return stamped(invocation, read(result_json))


def stamped(invocation: Invocation, result: dict[str, Any]) -> dict[str, Any]:
    """A tool's result with the Invocation's id in its `_meta`."""
    result.setdefault("resultType", "complete")
    result["_meta"] = {**(result.get("_meta") or {}), INVOCATION_KEY: invocation.id}
    return result
