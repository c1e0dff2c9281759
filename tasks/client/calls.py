"""A call as the caller writes it, and its JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

import orjson

from tasks.invocation import Lane
from tasks.retry import RetryPolicy


class CallOptions(TypedDict, total=False):
    """What may be said about a call besides tool and arguments: `tasks.wire.CallRequest`."""

    project: str | None
    requires: Collection[str]
    pool: str | None
    lane: Lane | str | None
    priority: int
    """0 to 9, higher is sooner."""
    delay_s: float | None
    not_before: float | None
    deadline_s: float | None
    expires_at: float | None
    timeout_s: float | None
    """Seconds one attempt may run; how long *you* wait is `wait_s` or `result(timeout_s)`."""
    retry: RetryPolicy | Mapping[str, Any] | None
    idempotency_key: str | None
    trace_id: str | None
    id: str | None
    parent: str | None
    """The Invocation whose run makes this call."""
    then: Sequence[Mapping[str, Any]]


def call_form(tool: str, arguments: Mapping[str, Any] | None, options: CallOptions) -> dict[str, Any]:
    """A CallRequest as a form; what was not said is left out."""
    said = {name: value for name, value in options.items() if value is not None}
    return {"tool": tool, "arguments": dict(arguments or {}), **said}


def write(form: object) -> bytes:
    """JSON; sets become lists, policies objects.

    Raises:
        TypeError: a value that JSON does not have.
    """
    return orjson.dumps(form, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset | Mapping):
        return dict(value) if isinstance(value, Mapping) else sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON; pass text, numbers, lists and dictionaries")
