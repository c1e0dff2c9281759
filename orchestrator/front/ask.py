"""What a tool asks of the user, put to a client of the handshake era over its session.

In the 2026 era a tool's `InputRequiredResult` goes to the client as it is. An older client knows
server requests instead: this sends them, and hands back the answers for the next leg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageResult,
    ElicitRequest,
    ElicitResult,
    ListRootsRequest,
    ListRootsResult,
)

ROUNDS = 10
"""Legs of one call before we stop asking: the limit that the SDK's clients have."""

_KINDS: dict[str, tuple[str, Any, Any]] = {
    "elicitation/create": ("elicitation", ElicitRequest, ElicitResult),
    "sampling/createMessage": ("sampling", CreateMessageRequest, CreateMessageResult),
    "roots/list": ("roots", ListRootsRequest, ListRootsResult),
}


def is_input_required(result: Mapping[str, Any]) -> bool:
    """The tool wants something from the user before it goes on."""
    return result.get("resultType") == "input_required"


def missing_capabilities(result: Mapping[str, Any], capabilities: ClientCapabilities | None) -> set[str]:
    """What the tool asks for and this client did not declare."""
    requests: Mapping[str, Any] = result.get("inputRequests") or {}
    wanted = {_KINDS[request["method"]][0] for request in requests.values() if request.get("method") in _KINDS}
    return {name for name in wanted if capabilities is None or getattr(capabilities, name) is None}


def refuse_missing(missing: set[str]) -> MCPError:
    """Source: MCP 2026-07-28, -32021 Missing Required Client Capability."""
    names = ", ".join(sorted(missing))
    data: dict[str, Any] = {"requiredCapabilities": {name: {} for name in sorted(missing)}}
    message = f"the tool needs input that this client did not declare: {names}"
    return MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, message, data)


async def ask(ctx: ServerRequestContext[Any, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The client's answers, keyed as the tool keyed its questions."""
    answers: dict[str, Any] = {}
    for key, request in (result.get("inputRequests") or {}).items():
        _, form, answer_form = _KINDS[request["method"]]
        answer = await ctx.session.send_request(
            form.model_validate(request, by_name=False),
            answer_form,
            metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
        )
        answers[key] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
    return answers
