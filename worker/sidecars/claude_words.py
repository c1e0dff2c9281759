"""Claude Code's messages in the fleet's words. Pure.

Source: claude-agent-sdk's message types, and what was measured of their truth: an API that refused ends as
`subtype: success` with `is_error`; permission denials end as a success too.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from worker.sidecars.bill import Bill
from worker.sidecars.sidecar import (
    Began,
    Ending,
    Event,
    Fault,
    Result,
    Retrying,
    Said,
    ToolBegan,
    ToolEnded,
)
from worker.sidecars.spend import Prices

ABOUT_CHARS = 200
_LIMITS = {
    "error_max_turns": (Fault.TURNS, "the run used all of its turns"),
    "error_max_budget_usd": (Fault.MONEY, "the run's money is spent"),
}
_BY_STATUS = {
    401: (Fault.AUTH, "the credential was refused (401): give the node a valid one"),
    403: (Fault.REFUSED, "the provider does not allow this (403)"),
    429: (Fault.QUOTA, "the credential has nothing left for now (429)"),
    529: (Fault.OVERLOADED, "the provider is overloaded (529)"),
}
_TOO_LONG = ("prompt is too long", "context_length", "context window")
_NO_SESSION = ("No conversation found", "session ID")


def events_of(message: Any, bill: Bill, *, cancelled: bool) -> Iterator[Event]:  # noqa: ANN401
    """What one message of the SDK says; nothing where it says nothing to us."""
    from claude_agent_sdk import AssistantMessage, ResultMessage, StreamEvent, SystemMessage, UserMessage

    if isinstance(message, SystemMessage):
        yield from _system(message.subtype, message.data)
    elif isinstance(message, StreamEvent):
        delta = message.event.get("delta") or {}
        if delta.get("type") == "text_delta":
            yield Said(delta.get("text", ""), is_part=True)
    elif isinstance(message, AssistantMessage):
        yield from _assistant(message.content)
    elif isinstance(message, UserMessage):
        yield from _user(message.content)
    elif isinstance(message, ResultMessage):
        yield _result(message, bill, cancelled=cancelled)


def broken(error: Exception, *, cancelled: bool) -> Result:
    """The SDK gave up: the process ended early, or what it said was no JSON."""
    said = str(error)
    if cancelled:
        return Result(Ending.CANCELLED, "the run was cancelled")
    if any(word in said for word in _NO_SESSION):
        return Result(Ending.FAILED, f"{said}; begin a new session", Fault.SESSION)
    return Result(Ending.FAILED, f"Claude Code ended without a result: {said[:500]}", Fault.PROTOCOL)


def _system(subtype: str, data: dict[str, Any]) -> Iterator[Event]:
    if subtype == "init":
        servers = {server["name"]: server.get("status", "") for server in data.get("mcp_servers") or []}
        yield Began(data.get("session_id", ""), data.get("model", ""), servers)
    elif subtype == "api_retry":
        yield Retrying(
            int(data.get("attempt") or 0), (data.get("retry_delay_ms") or 0) / 1000, data.get("error_status")
        )


def _assistant(content: list[Any]) -> Iterator[Event]:
    from claude_agent_sdk import TextBlock, ToolUseBlock

    for block in content:
        if isinstance(block, TextBlock):
            yield Said(block.text)
        elif isinstance(block, ToolUseBlock):
            yield ToolBegan(block.id, block.name, _about(block.input))


def _user(content: Any) -> Iterator[Event]:  # noqa: ANN401 - the SDK's: text or blocks
    from claude_agent_sdk import ToolResultBlock

    for block in content if isinstance(content, list) else ():
        if isinstance(block, ToolResultBlock):
            yield ToolEnded(block.tool_use_id, bool(block.is_error))


def _about(given: dict[str, Any]) -> str:
    for name in ("command", "file_path", "pattern", "url", "description", "prompt"):
        if isinstance(given.get(name), str):
            return str(given[name])[:ABOUT_CHARS]
    return ", ".join(f"{key}={value}" for key, value in given.items())[:ABOUT_CHARS]


def _result(message: Any, bill: Bill, *, cancelled: bool) -> Result:  # noqa: ANN401
    ending, fault, text = _judged(message, cancelled=cancelled)
    denials = tuple(str(denial.get("tool_name", "?")) for denial in message.permission_denials or [])
    return Result(
        ending=ending,
        text=text,
        fault=fault,
        session_id=message.session_id,
        structured=message.structured_output if ending is Ending.SUCCEEDED else None,
        turns=message.num_turns,
        usage=bill.usage,
        cost_usd=bill.cost_usd,
        denials=denials,
    )


def _judged(message: Any, *, cancelled: bool) -> tuple[Ending, Fault | None, str]:  # noqa: ANN401
    text = message.result or "; ".join(message.errors or []) or message.subtype
    if cancelled or str(message.terminal_reason or "").startswith("aborted_"):
        return Ending.CANCELLED, None, "the run was cancelled"
    if message.subtype in _LIMITS:
        fault, said = _LIMITS[message.subtype]
        return Ending.LIMIT, fault, said
    if not message.is_error and message.subtype == "success":
        return Ending.SUCCEEDED, None, message.result or ""
    fault, said = fault_of(message.api_error_status, text)
    ending = Ending.LIMIT if fault is Fault.MONEY else Ending.FAILED
    return ending, fault, f"{said}: {text[:500]}"


def fault_of(status: int | None, text: str) -> tuple[Fault, str]:
    """Of a request that was refused; `status` None where nobody answered."""
    if "mcpfleet: the run's money is spent" in text:
        return Fault.MONEY, "the run's money is spent"
    if any(word in text.lower() for word in _TOO_LONG):
        return Fault.CONTEXT, "this is more than the model reads at once: give it less, or begin a new session"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status in (None, HTTPStatus.BAD_GATEWAY):
        return Fault.UNREACHABLE, "the model's endpoint does not answer"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Fault.PROVIDER_FAILED, f"the provider failed ({status})"
    return Fault.REFUSED, f"the provider refused the request ({status})"


def pricing(prices: Prices) -> dict[str, dict[str, float]]:
    """As `modelPricing.overrides` of Claude Code's managed settings has them, for a million tokens."""
    return {
        name: {
            "input": price.input,
            "output": price.output,
            "cacheRead": price.cache_read,
            "cacheWrite": price.cache_write,
        }
        for name, price in prices.by_model.items()
    }
