"""The MCP tasks extension (`io.modelcontextprotocol/tasks`, SEP-2663), backed by the ledger.

A task is an Invocation under the same id, durable before the client hears of it. Refuses clients
that did not declare the extension, and shows nobody another tenant's tasks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.extension import MethodBinding
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    EmptyResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from orchestrator.front.faults import refused, rpc_error, stamped
from orchestrator.front.legs import Legs, Tasks
from orchestrator.front.meta import PREFIX
from orchestrator.front.ports import Fleet
from orchestrator.front.questions import Answers, can_be_asked
from orchestrator.front.who import headers_of, principal_of
from tasks.errors import FleetError, NotFound
from tasks.invocation import TERMINAL, Invocation, Lane, State
from tasks.tool import ToolSpec

EXTENSION = "io.modelcontextprotocol/tasks"
TASK_SUPPORT_KEY = f"{PREFIX}taskSupport"
_MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)
_MS_PER_S = 1000

Ctx = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """Params of tasks/get and tasks/cancel."""

    task_id: str


class UpdateParams(TaskParams):
    """Params of tasks/update."""

    input_responses: dict[str, Any]


def is_declared(ctx: Ctx) -> bool:
    """The client knows tasks. Only the 2026 era can carry them."""
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities else None
    return ctx.protocol_version in _MODERN and bool(declared) and EXTENSION in (declared or {})


def require_declared(ctx: Ctx) -> None:
    """Raises MCPError -32021 unless the client declared the extension. Source: SEP-2663, SEP-2575."""
    if not is_declared(ctx):
        data: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"the client did not declare {EXTENSION}", data)


def requires_task(spec: ToolSpec) -> bool:
    """The tool may only be called as a task.

    Said by its server, in the words of 2025-11-25 (`execution.taskSupport`), which the 2026 schema no
    longer has, or in `_meta` under `mcpfleet/taskSupport`.
    """
    definition = spec.definition
    said = (definition.get("execution") or {}).get("taskSupport")
    return "required" in {said, (definition.get("_meta") or {}).get(TASK_SUPPORT_KEY)}


def needs_task(ctx: Ctx, spec: ToolSpec | None, lane: Lane | None) -> bool:
    """Whether the answer must be a task at once, without waiting whether the call is short.

    Raises:
        MCPError: -32021, the tool requires it and the client did not declare the extension. A client
            of the handshake era cannot declare it and is served inline.
    """
    if spec is None:
        return False
    if requires_task(spec):
        if ctx.protocol_version in _MODERN:
            require_declared(ctx)
        return is_declared(ctx)
    return (lane or spec.lane) is Lane.AGENTS and is_declared(ctx)


class TasksExtension:
    """tasks/get, tasks/update, tasks/cancel."""

    def __init__(self, fleet: Fleet, tasks: Tasks, answers: Answers, *, ttl_s: float, poll_interval_s: float) -> None:
        self._fleet, self._answers = fleet, answers
        self._tasks = tasks
        self._ttl_ms = int(ttl_s * _MS_PER_S)
        self._poll_interval_ms = int(poll_interval_s * _MS_PER_S)

    def methods(self) -> list[MethodBinding]:
        """What the server must serve, in the 2026 era only."""
        return [
            MethodBinding("tasks/get", TaskParams, self.get, _MODERN),
            MethodBinding("tasks/update", UpdateParams, self.update, _MODERN),
            MethodBinding("tasks/cancel", TaskParams, self.cancel, _MODERN),
        ]

    def created(self, invocation: Invocation) -> dict[str, Any]:
        """The CreateTaskResult that answers a tools/call."""
        return {"resultType": "task", **self._task(Legs(invocation, invocation, 1), "working")}

    async def get(self, ctx: Ctx, params: TaskParams) -> dict[str, Any]:
        """The task with its result, error or questions inlined."""
        _check(ctx, params)
        try:
            legs = await self._tasks.read(params.task_id, principal_of(ctx))
        except FleetError as error:
            raise _unknown(error) from error
        return {"resultType": "complete", **(self._asking(ctx, legs) or self._detailed(legs))}

    async def update(self, ctx: Ctx, params: UpdateParams) -> EmptyResult:
        """Answers to the task's questions."""
        _check(ctx, params)
        try:
            legs = await self._tasks.read(params.task_id, principal_of(ctx))
            await self._answers.update(legs.last.id, params.input_responses, principal_of(ctx))
            await self._tasks.update(params.task_id, params.input_responses, principal_of(ctx))
        except FleetError as error:
            raise _unknown(error) from error
        return EmptyResult(result_type="complete")

    async def cancel(self, ctx: Ctx, params: TaskParams) -> EmptyResult:
        """Cooperative: the status follows when the node has stopped it."""
        _check(ctx, params)
        try:
            await self._tasks.cancel(params.task_id, principal_of(ctx))
        except FleetError as error:
            raise _unknown(error) from error
        return EmptyResult(result_type="complete")

    def _asking(self, ctx: Ctx, legs: Legs) -> dict[str, Any] | None:
        """What the run asks of a person, where this client's user can be asked."""
        requests, _ = self._answers.requests(legs.last.id)
        if not requests or legs.last.state in TERMINAL or not can_be_asked(ctx):
            return None
        return {**self._task(legs, "input_required"), "inputRequests": requests}

    def _detailed(self, legs: Legs) -> dict[str, Any]:
        if legs.pending:
            return {**self._task(legs, "input_required"), "inputRequests": dict(legs.pending)}
        if not legs.is_over:
            return self._task(legs, "working")
        if legs.last.state is State.CANCELLED:
            return self._task(legs, "cancelled")
        if legs.result is None:
            return {**self._task(legs, "failed"), "error": rpc_error(legs.last)}
        return {**self._task(legs, "completed"), "result": stamped(legs.last, legs.result)}

    def _task(self, legs: Legs, status: str) -> dict[str, Any]:
        return {
            "taskId": legs.first.id,
            "status": status,
            "statusMessage": str(legs.last.state),
            "createdAt": _iso(legs.first.accepted_at),
            "lastUpdatedAt": _iso(_changed_at(legs.last)),
            "ttlMs": self._ttl_ms,
            "pollIntervalMs": self._poll_interval_ms,
        }


def _check(ctx: Ctx, params: TaskParams) -> None:
    """Source: SEP-2663, Routing Headers. Some clients omit `Mcp-Name` here: only a wrong one is refused."""
    require_declared(ctx)
    name = headers_of(ctx).get(MCP_NAME_HEADER)
    if name is not None and decode_header_value(name) != params.task_id:
        raise MCPError(HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId'")


def _unknown(error: FleetError) -> MCPError:
    if isinstance(error, NotFound):
        return MCPError(INVALID_PARAMS, "no such task", {"code": error.code})
    return refused(error)


def _changed_at(invocation: Invocation) -> float:
    seen = [invocation.accepted_at, invocation.ended_at]
    for attempt in invocation.attempts:
        seen += [attempt.released_at, attempt.started_at, attempt.ended_at]
    return max(at for at in seen if at is not None)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
