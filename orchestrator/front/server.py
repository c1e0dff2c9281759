"""The fleet as one MCP server: which handler answers which method.

Built on the SDK's lowlevel `Server`, so that tools come from the fleet and not from functions, with
the input schema looked up by name (else the SDK lists every tool before every call).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.extension import MethodBinding, RequestHandler
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CallToolRequestParams,
    NotificationParams,
    PaginatedRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from orchestrator.front.ask import ROUNDS, ask, is_input_required, missing_capabilities, refuse_missing
from orchestrator.front.calls import Asked, Refused, ToolCalls
from orchestrator.front.catalogue import Catalogue
from orchestrator.front.changes import ToolChanges
from orchestrator.front.faults import refused, tool_error
from orchestrator.front.legs import Tasks
from orchestrator.front.mcptasks import EXTENSION, TasksExtension, is_declared, needs_task
from orchestrator.front.plain import PlainTools
from orchestrator.front.ports import Fleet
from orchestrator.front.questions import Answers, Approvals, Questions, State, can_be_asked, state_of
from orchestrator.front.settings import FrontSettings
from orchestrator.front.who import SESSION_HEADER, TRACE_KEY, headers_of, principal_of, request_key
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import TERMINAL, Invocation

Ctx = ServerRequestContext[Any, Any]
_MS_PER_S = 1000


class FleetServer(Server[Any]):
    """The lowlevel server; says in the handshake that its tools change where it can tell of it."""

    tells_changes = False

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK's; the Streamable HTTP session manager calls it without arguments."""
        options = notification_options or NotificationOptions(tools_changed=self.tells_changes)
        return super().create_initialization_options(options, experimental_capabilities, extensions or {})


@dataclass(frozen=True, slots=True)
class Built:
    """The server and the parts that its doors share."""

    server: FleetServer
    fleet: Fleet
    calls: ToolCalls
    catalogue: Catalogue
    changes: ToolChanges
    listening: ListenHandler
    bus: SubscriptionBus
    tasks: TasksExtension


class Handlers:
    """The bodies of tools/list and tools/call."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        settings: FrontSettings,
        calls: ToolCalls,
        catalogue: Catalogue,
        plain: PlainTools,
        tasks: TasksExtension,
        answers: Answers,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._calls = calls
        self._catalogue = catalogue
        self._plain = plain
        self._tasks = tasks
        self._answers = answers

    async def list_tools(self, ctx: Ctx, params: PaginatedRequestParams | None) -> HandlerResult:
        """One page of the fleet's tools."""
        tools, following = self._catalogue.page(principal_of(ctx), params.cursor if params else None)
        page: dict[str, Any] = {
            "resultType": "complete",
            "tools": tools,
            "ttlMs": int(self._settings.tools_ttl_s * _MS_PER_S),
            "cacheScope": "private",
        }
        if following is not None:
            page["nextCursor"] = following
        return page

    async def call_tool(self, ctx: Ctx, params: CallToolRequestParams) -> HandlerResult:
        """Place the call and answer with the tool's own content, or with a task."""
        raw = ctx.params or {}
        if self._plain.has(params.name):
            return await self._plain.call(params.name, params.arguments or {}, principal_of(ctx), headers_of(ctx))
        asked = self._asked(ctx, params.name, raw)
        state = state_of(raw)
        if state is not None:
            return await self._go_on(ctx, asked, state)
        try:
            return await self._place(ctx, asked)
        except Refused as answer:
            return answer.result

    def _asked(self, ctx: Ctx, name: str, raw: Any) -> Asked:  # noqa: ANN401 - params as they came
        principal = principal_of(ctx)
        wants_progress = "progressToken" in (raw.get("_meta") or {})
        return Asked(
            tool=self._catalogue.fleet_name(name, principal),
            params=raw,
            principal=principal,
            headers=headers_of(ctx),
            on_progress=ctx.session.report_progress if wants_progress else None,
            request=request_key(headers_of(ctx).get(SESSION_HEADER), ctx.request_id),
        )

    async def _place(self, ctx: Ctx, asked: Asked) -> HandlerResult:
        wants_task = needs_task(ctx, self._fleet.tool(asked.tool), None)
        invocation = await self._calls.accept(asked)
        if isinstance(ctx.request, Request):
            ctx.request.scope[TRACE_KEY] = invocation.call.trace_id
        if wants_task:
            return self._tasks.created(invocation)
        window_s = self._settings.inline_window_s if is_declared(ctx) else None
        met = await self._followed(ctx, asked, invocation, window_s=window_s)
        if not isinstance(met, Invocation):
            return met
        invocation = met
        if invocation.state not in TERMINAL:
            return self._tasks.created(invocation)
        result = await self._calls.answer(invocation)
        return await self._with_input(ctx, asked, result) if is_input_required(result) else result

    async def _go_on(self, ctx: Ctx, asked: Asked, state: State) -> HandlerResult:
        """A client of the 2026 era calls again with answers: the same Invocation, not another one."""
        try:
            invocation = await self._fleet.get(state.invocation, asked.principal)
        except FleetError as error:
            raise refused(error) from error
        if invocation.call.tool != asked.tool:
            raise MCPError(INVALID_PARAMS, f"requestState is that of another call, of {invocation.call.tool}")
        answers = asked.params.get("inputResponses") or {}
        left = (await self._answers.take(state, answers, asked.principal)).left
        met = await self._followed(ctx, asked, invocation, left=left)
        return await self._calls.answer(met) if isinstance(met, Invocation) else met

    async def _followed(
        self,
        ctx: Ctx,
        asked: Asked,
        invocation: Invocation,
        *,
        left: Sequence[str] = (),
        window_s: float | None = None,
    ) -> Invocation | dict[str, Any]:
        """The Invocation when it ended or the window is over; or what its run asks of the client's user."""
        while True:
            questions = Questions(self._answers, ctx, asked.principal, left) if can_be_asked(ctx) else None
            found = await self._calls.finish(invocation, replace(asked, questions=questions), window_s=window_s)
            if found.state in TERMINAL or questions is None or not questions.is_due.is_set():
                return found
            requests, digests = self._answers.requests(invocation.id, left)
            if requests:  # else somebody answered meanwhile
                state = State(invocation=invocation.id, asked=digests, left=tuple(left))
                return {"resultType": "input_required", "inputRequests": requests, "requestState": state.sealed()}

    async def _with_input(self, ctx: Ctx, asked: Asked, result: dict[str, Any]) -> HandlerResult:
        """The 2026 era gets the questions; an older client is asked over its session."""
        missing = missing_capabilities(result, ctx.session.client_capabilities)
        is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        if is_modern and missing:
            raise refuse_missing(missing)
        if is_modern:
            return result
        for _ in range(ROUNDS):
            if missing or not ctx.session.can_send_request:
                wanted = ", ".join(sorted(missing)) or "a session"
                return tool_error(f"{asked.tool} needs input from its user, and this client offers no {wanted} for it")
            answers = await ask(ctx, result)
            params = {**asked.params, "inputResponses": answers, "requestState": result.get("requestState")}
            asked = replace(asked, params=params)
            result = await self._calls.answer(await self._calls.finish(await self._calls.accept(asked), asked))
            if not is_input_required(result):
                return result
            missing = missing_capabilities(result, ctx.session.client_capabilities)
        return tool_error(f"{asked.tool} asked for input {ROUNDS} times; giving up")


def build_server(fleet: Fleet, settings: FrontSettings, clock: Clock, approvals: Approvals) -> Built:
    """The whole MCP server, without a transport."""
    calls = ToolCalls(fleet, clock, abandon_timeout_s=settings.abandon_timeout_s)
    plain, answers = PlainTools(fleet, calls, clock), Answers(approvals)
    catalogue = Catalogue(fleet, plain.definitions(), page_size=settings.page_size, bare_names=settings.bare_names)
    tasks = TasksExtension(
        fleet, Tasks(fleet, clock), answers, ttl_s=settings.task_ttl_s, poll_interval_s=settings.poll_interval_s
    )
    handlers = Handlers(
        fleet=fleet, settings=settings, calls=calls, catalogue=catalogue, plain=plain, tasks=tasks, answers=answers
    )
    bus = InMemorySubscriptionBus()
    listening = ListenHandler(bus)
    changes = ToolChanges(fleet, bus, interval_s=settings.watch_interval_s)
    server = FleetServer(
        settings.name,
        version=settings.version,
        title="mcpfleet",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=catalogue.input_schema,
        on_list_tools=handlers.list_tools,  # type: ignore[arg-type]  # definitions are passed on as they came
        on_call_tool=handlers.call_tool,  # type: ignore[arg-type]  # so are results
        on_subscriptions_listen=listening,
    )
    server.tells_changes = settings.legacy_sessions
    server.middleware.clear()  # OpenTelemetry spans per message, which nobody reads yet, cost CPU on every call
    server.add_notification_handler("notifications/initialized", NotificationParams, changes.initialized)
    server.extensions[EXTENSION] = {}
    for binding in tasks.methods():
        server.add_request_handler(binding.method, binding.params_type, _gated(binding))
    return Built(server, fleet, calls, catalogue, changes, listening, bus, tasks)


INSTRUCTIONS = (
    "A fleet of machines as one server. Tools are named server.tool. "
    "For work that takes long, call fleet.submit and then fleet.get; fleet.why explains where a call is."
)


def _gated(binding: MethodBinding) -> RequestHandler:
    """The binding's handler, for its protocol versions only."""

    async def handle(ctx: Ctx, params: Any) -> HandlerResult:  # noqa: ANN401 - checked against params_type
        if binding.protocol_versions is not None and ctx.protocol_version not in binding.protocol_versions:
            raise MCPError(METHOD_NOT_FOUND, "Method not found", binding.method)
        return await binding.handler(ctx, params)

    return handle
