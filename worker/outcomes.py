"""How one attempt ended, as an Outcome: from a result's text, an error, a timeout. Pure.

Refuses to decide whether to try again: `tasks/retry.py` does, at the orchestrator.
"""

from __future__ import annotations

import re

import orjson

from tasks.outcome import ErrorInfo, Failure, Outcome

MESSAGE_CHARS_MAX = 500
"""Of a tool's error text in the error's message; the whole answer stays in `result_json`."""
NODE_AWAY_S = 2.5
"""Until a node that cannot work has said so in a renewal (every 2 s) and is not placed on any more."""
_IS_ERROR = re.compile(r'"isError"\s*:\s*true')
CANCELLED = Outcome("cancelled")


def of_result(text: str, tool: str) -> Outcome:
    r"""Succeeded, or failed as a tool error where the CallToolResult says `isError`.

    The text is searched before it is parsed, so that a large good result costs no parsing. A quoted
    look-alike inside a string is escaped (`\"isError\"`) and does not match.
    """
    if _IS_ERROR.search(text) is None:
        return Outcome("succeeded", text)
    form = orjson.loads(text)
    if form.get("isError") is not True:
        return Outcome("succeeded", text)
    error = ErrorInfo("tool_error", f"{tool} answered with an error: {_said(form)}", Failure.TOOL_ERROR)
    return Outcome("failed", text, error=error)


def failed(error: ErrorInfo) -> Outcome:
    """Failed without a result."""
    return Outcome("failed", error=error)


def timed_out(tool: str, timeout_s: float) -> Outcome:
    """The tool did not answer in time; it may have done its work."""
    message = (
        f"{tool} did not answer within {timeout_s:g} s and was told to stop; raise timeout_s, or look at its server"
    )
    return failed(ErrorInfo("tool_timeout", message, Failure.MAYBE_STARTED))


def expired(tool: str, *, was_started: bool) -> Outcome:
    """The deadline passed."""
    when = "while it ran; it was told to stop" if was_started else "before a slot was free; it was not started"
    return Outcome(
        "expired", error=ErrorInfo("deadline_passed", f"the deadline of {tool} passed {when}", Failure.PERMANENT)
    )


def too_large(tool: str, size_bytes: int, limit_bytes: int) -> Outcome:
    """The result is over the fleet's limit."""
    message = (
        f"the result of {tool} has {size_bytes} bytes, the limit is {limit_bytes}; let it return a reference instead"
    )
    return failed(ErrorInfo("result_too_large", message, Failure.PERMANENT))


def not_journaled(detail: str) -> Outcome:
    """The node could not write its journal, so it started nothing; costs no try."""
    return failed(ErrorInfo("journal_failed", f"{detail}; the tool was not started", Failure.WAIT_UNTIL, NODE_AWAY_S))


def lease_over(tool: str) -> Outcome:
    """The lease ran out between the slot and the start; costs no try."""
    message = f"{tool} was not started: its node's lease had run out"
    return failed(ErrorInfo("lease_over", message, Failure.WAIT_UNTIL, NODE_AWAY_S))


def drained(tool: str) -> Outcome:
    """The node had to stop before the tool had ended."""
    message = f"{tool} still ran when its node's time to drain was over; raise MCPFLEET_NODE_DRAIN_S for longer calls"
    return failed(ErrorInfo("node_drained", message, Failure.MAYBE_STARTED))


def cut_off(tool: str) -> Outcome:
    """Its node had lost the fleet for so long that another one may have gone on with it."""
    message = f"{tool} was stopped: its node had not reached the orchestrator for longer than the grace of agents"
    return failed(ErrorInfo("node_cut_off", message, Failure.MAYBE_STARTED))


def node_error(tool: str, error: BaseException) -> Outcome:
    """A defect of the node itself; its log has the traceback."""
    message = f"the node failed while it ran {tool} ({type(error).__name__}); its log has the traceback"
    return failed(ErrorInfo("node_error", message, Failure.MAYBE_STARTED))


def size_bytes(text: str) -> int:
    """Of the UTF-8 form; the common case costs no copy."""
    return len(text) if text.isascii() else len(text.encode())


def _said(form: dict[str, object]) -> str:
    content = form.get("content")
    blocks = content if isinstance(content, list) else []
    texts = [str(block["text"]) for block in blocks if isinstance(block, dict) and "text" in block]
    return " ".join(texts)[:MESSAGE_CHARS_MAX] or "no text was given"
