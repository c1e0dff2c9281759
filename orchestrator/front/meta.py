"""What an MCP client says about a call beside its arguments, made into a `Call`.

Requirements travel in `_meta` under `mcpfleet/…` keys, the project also in the header
`X-Mcpfleet-Project`. What else the client put into `_meta` is carried to the tool; what belongs to
this one hop (protocol version, client identity, progress token) is not. Source: docs/mcp.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from mcp.shared.exceptions import MCPError
from mcp_types import CLIENT_CAPABILITIES_META_KEY, INVALID_PARAMS
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.front.exact_json import write
from orchestrator.wanted import wanted_of_field
from tasks.invocation import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, Call, Lane
from tasks.retry import RetryPolicy
from tasks.tool import RetryForm
from tasks.tracing import Trace, read_traceparent, trace_parent_of

PREFIX = "mcpfleet/"
PROTOCOL_PREFIX = "io.modelcontextprotocol/"
PROJECT_HEADER = "x-mcpfleet-project"
INVOCATION_KEY = f"{PREFIX}invocation"
"""In a result's `_meta`: the Invocation that made it, for `fleet.why`."""

_HOP_KEYS = frozenset({"progressToken"})
_YEAR_S = 365 * 86_400


class CallMeta(BaseModel):
    """The `mcpfleet/…` keys of `_meta`, without their prefix."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    project: str | None = None
    requires: frozenset[Annotated[str, Field(max_length=63)]] = Field(default=frozenset(), max_length=32)
    pool: str | None = Field(default=None, max_length=63)
    lane: Lane | None = None
    priority: int = Field(default=PRIORITY_DEFAULT, ge=PRIORITY_MIN, le=PRIORITY_MAX)
    delay_s: float | None = Field(default=None, ge=0, le=_YEAR_S)
    deadline_s: float | None = Field(default=None, le=_YEAR_S)
    timeout_s: float | None = Field(default=None, gt=0)
    retry: RetryForm | None = None
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)
    parent: str | None = Field(default=None, min_length=1, max_length=64)


NOTHING_SAID = CallMeta()


def read_meta(meta: Mapping[str, Any]) -> CallMeta:
    """The `mcpfleet/…` keys of a request's `_meta`.

    Raises:
        MCPError: -32602, naming the key that is unknown or wrong.
    """
    said = {key.removeprefix(PREFIX): value for key, value in meta.items() if key.startswith(PREFIX)}
    return parse_meta(said) if said else NOTHING_SAID


def parse_meta(said: Mapping[str, Any]) -> CallMeta:
    """As `read_meta`, from keys without their prefix."""
    try:
        return CallMeta.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise MCPError(
            INVALID_PARAMS, f"{PREFIX}{key}: {wanted_of_field(first)}", {"code": "invalid_call", "key": key}
        ) from error


def make_call(
    tool: str, params: Mapping[str, Any], headers: Mapping[str, str], *, now_s: float, said: CallMeta | None = None
) -> Call:
    """The `Call` that a tools/call request asks for.

    Args:
        tool: the fleet's name of it.
        params: the request's params as they came.
        headers: of the HTTP request; empty where there is none.
        now_s: wall clock, for `delay_s` and `deadline_s`.
        said: requirements from elsewhere than `_meta` (the plain tools take them as arguments).
    """
    meta: Mapping[str, Any] = params.get("_meta") or {}
    wanted, trace = said or read_meta(meta), _trace(meta, headers)
    return Call(
        tool=tool,
        arguments_json=write(params.get("arguments") or {}).decode(),
        project=wanted.project or headers.get(PROJECT_HEADER),
        requires=wanted.requires,
        pool=wanted.pool,
        lane=wanted.lane,
        priority=wanted.priority,
        not_before=None if wanted.delay_s is None else now_s + wanted.delay_s,
        expires_at=None if wanted.deadline_s is None else now_s + wanted.deadline_s,
        timeout_s=wanted.timeout_s,
        retry=None if wanted.retry is None else RetryPolicy(**wanted.retry.model_dump()),
        idempotency_key=wanted.idempotency_key,
        parent=wanted.parent,
        trace_id=None if trace is None else trace.trace_id,
        trace_parent=trace_parent_of(trace),
        meta_json=_carried(params, meta),
    )


def _trace(meta: Mapping[str, Any], headers: Mapping[str, str]) -> Trace | None:
    """Source: W3C trace context; MCP carries it in `_meta.traceparent` (SEP-414) or the header."""
    return read_traceparent(meta.get("traceparent") or headers.get("traceparent"))


def _carried(params: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    """What goes on to the tool beside its arguments, or None: the common case costs nothing."""
    kept = {key: value for key, value in meta.items() if _is_carried(key, value)}
    carried: dict[str, Any] = {"_meta": kept} if kept else {}
    for key in ("inputResponses", "requestState"):
        if params.get(key) is not None:
            carried[key] = params[key]
    return write(carried).decode() if carried else None


def _is_carried(key: str, value: object) -> bool:
    if key == CLIENT_CAPABILITIES_META_KEY:
        return bool(value)  # a tool must not ask for input that this client cannot give
    return not key.startswith((PROTOCOL_PREFIX, PREFIX)) and key not in _HOP_KEYS
