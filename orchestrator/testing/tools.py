"""Tools for the fake fleet: the probe's, under the names every real node has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tasks.outcome import Failure
from tasks.tool import ToolSpec

Report = Callable[[float, float | None, str | None], None]
Run = Callable[[dict[str, Any], Report], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class FakeTool:
    """A tool and what it does: arguments and a progress callback in, a CallToolResult out."""

    spec: ToolSpec
    run: Run


class ToolBroke(Exception):
    """An attempt that ended without an answer of the tool."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure, self.message = failure, message


def answer(text: str, *, structured: dict[str, Any] | None = None, is_error: bool = False) -> dict[str, Any]:
    """A CallToolResult with one text block."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": is_error}
    if structured is not None:
        result["structuredContent"] = structured
    return result


def tool(name: str, run: Run, properties: dict[str, Any], *, is_safe: bool = True) -> FakeTool:
    """A fake tool named `server.tool`; every property of its schema may be left out."""
    server, _, short = name.partition(".")
    definition = {
        "name": short,
        "description": f"{short}, as the probe does it",
        "inputSchema": {"type": "object", "properties": properties, "additionalProperties": False},
        "annotations": {"idempotentHint": is_safe},
    }
    return FakeTool(ToolSpec(server=server, definition=definition), run)


def probe_tools() -> dict[str, FakeTool]:
    """`probe.echo`, `probe.sleep` (with progress), `probe.fail`, `probe.flaky`, `probe.stats`."""
    failures: dict[str, int] = {}

    async def echo(arguments: dict[str, Any], _report: Report) -> dict[str, Any]:
        return answer(str(arguments.get("text", "")))

    async def stats(arguments: dict[str, Any], _report: Report) -> dict[str, Any]:
        text = str(arguments.get("text", ""))
        return answer(text, structured={"text": text, "length": len(text)})

    async def sleep(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
        steps = int(arguments.get("steps", 1))
        for step in range(steps):
            await asyncio.sleep(float(arguments.get("seconds", 0)) / steps)
            report(step + 1, steps, f"step {step + 1}")
        return answer("slept")

    async def fail(arguments: dict[str, Any], _report: Report) -> dict[str, Any]:
        return answer(str(arguments.get("text", "failed as asked")), is_error=True)

    async def flaky(arguments: dict[str, Any], _report: Report) -> dict[str, Any]:
        key, times = str(arguments.get("key", "")), int(arguments.get("times", 1))
        failures[key] = failures.get(key, 0) + 1
        if failures[key] <= times:
            raise ToolBroke(Failure.NOT_STARTED, f"failure {failures[key]} of {times}, as asked")
        return answer(f"worked after {times}")

    text, number = {"type": "string"}, {"type": "number"}
    made = (
        tool("probe.echo", echo, {"text": text}),
        tool("probe.stats", stats, {"text": text}),
        tool("probe.sleep", sleep, {"seconds": number, "steps": {"type": "integer", "minimum": 1}}),
        tool("probe.fail", fail, {"text": text}, is_safe=False),
        tool("probe.flaky", flaky, {"key": text, "times": {"type": "integer"}}),
    )
    return {one.spec.name: one for one in made}
