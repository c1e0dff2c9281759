"""An Invocation as the wire shows it. Written straight to JSON: this is on every answer's way.

The forms are `tasks.wire` models; tests/unit/test_api_document.py holds them to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from orchestrator.ledger.dead_values import DeadLetter
from tasks.invocation import Attempt, Invocation
from tasks.outcome import ErrorInfo
from tasks.wire import DeadLetterView, ErrorView


def invocation(
    value: Invocation, result_json: str | None = None, spent: Sequence[object] = (), trace_url: str | None = None
) -> bytes:
    """`InvocationView` as JSON. The result is embedded as it is, never parsed."""
    call, outcome = value.call, value.outcome
    return orjson.dumps(
        {
            "id": value.id,
            "tool": call.tool,
            "project": call.project,
            "state": value.state,
            "lane": value.lane,
            "priority": call.priority,
            "tenant": value.principal.tenant,
            "principal": value.principal.id,
            "accepted_at": value.accepted_at,
            "ended_at": value.ended_at,
            "expires_at": call.expires_at,
            "not_before": call.not_before,
            "fence": value.fence,
            "tries": value.tries,
            "node": value.attempts[-1].node if value.attempts else None,
            "trace_id": call.trace_id,
            "trace_url": trace_url,
            "replay_of": value.replay_of,
            "parent": call.parent,
            "root": value.root,
            "depth": value.depth,
            "cancel_requested": value.cancel_requested,
            "error": None if outcome is None or outcome.error is None else _error(outcome.error),
            "result": None if result_json is None else orjson.Fragment(result_json),
            "attempts": [attempt(one) for one in value.attempts],
            "spent": spent,
            "approvals": value.approvals,
        }
    )


def arguments(invocation_id: str, text: str, max_bytes: int | None) -> bytes:
    """`ArgumentsView` as JSON. They are embedded as they are, never parsed."""
    size_bytes = len(text.encode())
    is_shown = max_bytes is None or size_bytes <= max_bytes
    shown = orjson.Fragment(text) if is_shown else None
    return orjson.dumps({"id": invocation_id, "size_bytes": size_bytes, "arguments": shown})


def attempt(value: Attempt) -> dict[str, object]:
    """`AttemptView` as a form."""
    error = None
    if value.error_code is not None:
        error = {"code": value.error_code, "message": value.error_message or "", "failure": ""}
    return {
        "fence": value.fence,
        "node": value.node,
        "pool": value.pool,
        "queue": value.queue,
        "released_at": value.released_at,
        "started_at": value.started_at,
        "ended_at": value.ended_at,
        "ending": value.ending,
        "error": error,
        "reasons": value.reasons,
        "heard_at": value.heard_at,
    }


def dead_letter(value: DeadLetter) -> DeadLetterView:
    """One dead letter."""
    error = value.error
    return DeadLetterView(
        id=value.invocation_id,
        tool=value.tool,
        project=value.project,
        ending=value.ending,
        reason=value.reason,
        error=None if error is None else ErrorView(code=error.code, message=error.message, failure=error.failure),
        ended_at=value.ended_at,
        replayed_as=value.replayed_as,
    )


def _error(error: ErrorInfo) -> dict[str, object]:
    return {"code": error.code, "message": error.message, "failure": error.failure}
