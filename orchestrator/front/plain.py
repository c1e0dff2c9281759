"""Plain tools for clients without tasks: `fleet.submit`, `fleet.get`, `fleet.cancel`, `fleet.why`.

They do with the ledger what the tasks extension does, in words that any MCP client knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.front.calls import Refused, ToolCalls
from orchestrator.front.exact_json import read, write
from orchestrator.front.faults import tool_error
from orchestrator.front.meta import CallMeta, make_call
from orchestrator.front.ports import Fleet
from orchestrator.wanted import wanted_of_field
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import Invocation, Principal

WAIT_MAX_S = 3600.0
"""Seconds one `fleet.get` may wait; a client waits longer by calling again."""

Body = Callable[[Mapping[str, Any], Principal, Mapping[str, str]], Awaitable[dict[str, Any]]]


class SubmitArguments(CallMeta):
    """Place a tool call on the fleet and return at once with its id."""

    tool: str = Field(description="server.tool, as listed", max_length=256)
    arguments: dict[str, Any] = Field(default_factory=dict, description="the tool's arguments")


class IdArguments(BaseModel):
    """Which call."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str = Field(description="the id that fleet.submit gave", max_length=64)


class GetArguments(IdArguments):
    """Which call, and how long to wait for its end."""

    wait_s: float = Field(default=0.0, ge=0, le=WAIT_MAX_S, description="seconds to wait for the end")


class PlainTools:
    """The four tools: their definitions and what they do."""

    def __init__(self, fleet: Fleet, calls: ToolCalls, clock: Clock) -> None:
        self._fleet = fleet
        self._calls = calls
        self._clock = clock
        self._bodies: dict[str, Body] = {
            "fleet.submit": self._submit,
            "fleet.get": self._get,
            "fleet.cancel": self._cancel,
            "fleet.why": self._why,
        }

    def definitions(self) -> list[dict[str, Any]]:
        """As tools/list shows them."""
        reads = {"readOnlyHint": True, "openWorldHint": False}
        return [
            _define("fleet.submit", "Submit a call", SubmitArguments.__doc__, SubmitArguments, {"openWorldHint": True}),
            _define("fleet.get", "Get a call", "State and, when it ended, result of a call.", GetArguments, reads),
            _define(
                "fleet.cancel",
                "Cancel a call",
                "Stop a call that waits or runs.",
                IdArguments,
                {"idempotentHint": True},
            ),
            _define("fleet.why", "Explain a call", "Why it waits, runs there, or was refused.", IdArguments, reads),
        ]

    def has(self, name: str) -> bool:
        """Whether `name` is one of ours."""
        return name in self._bodies

    async def call(
        self, name: str, arguments: Mapping[str, Any], principal: Principal, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """A CallToolResult; whatever goes wrong is one with `isError`."""
        try:
            answer = await self._bodies[name](arguments, principal, headers)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            return tool_error(f"{name}: argument {path}: {wanted_of_field(first)}")
        except FleetError as error:
            return tool_error(error.message)
        except Refused as error:
            return error.result
        text = write(answer).decode()
        return {"resultType": "complete", "content": [{"type": "text", "text": text}], "structuredContent": answer}

    async def _submit(
        self, arguments: Mapping[str, Any], principal: Principal, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        said = SubmitArguments.model_validate(arguments)
        call = make_call(said.tool, {"arguments": said.arguments}, headers, now_s=self._clock.wall_s(), said=said)
        return _view((await self._fleet.accept([call], principal))[0])

    async def _get(self, arguments: Mapping[str, Any], principal: Principal, _: Mapping[str, str]) -> dict[str, Any]:
        asked = GetArguments.model_validate(arguments)
        if asked.wait_s:
            invocation = await self._fleet.wait(asked.id, principal, asked.wait_s)
        else:
            invocation = await self._fleet.get(asked.id, principal)
        text = await self._fleet.result_json(invocation)
        return {**_view(invocation), "result": None if text is None else read(text)}

    async def _cancel(self, arguments: Mapping[str, Any], principal: Principal, _: Mapping[str, str]) -> dict[str, Any]:
        return _view(await self._fleet.cancel(IdArguments.model_validate(arguments).id, principal))

    async def _why(self, arguments: Mapping[str, Any], principal: Principal, _: Mapping[str, str]) -> dict[str, Any]:
        view = await self._fleet.explain(IdArguments.model_validate(arguments).id, principal)
        return view.model_dump(mode="json")


def _view(invocation: Invocation) -> dict[str, Any]:
    error = invocation.outcome.error if invocation.outcome else None
    return {
        "id": invocation.id,
        "tool": invocation.call.tool,
        "project": invocation.call.project,
        "state": str(invocation.state),
        "node": invocation.attempts[-1].node if invocation.attempts else None,
        "error": None if error is None else {"code": error.code, "message": error.message},
    }


def _define(
    name: str, title: str, description: str | None, form: type[BaseModel], annotations: dict[str, bool]
) -> dict[str, Any]:
    schema = form.model_json_schema()
    schema.pop("description", None)
    return {
        "name": name,
        "title": title,
        "description": description or "",
        "inputSchema": schema,
        "annotations": annotations,
    }
