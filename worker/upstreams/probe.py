"""The built-in server `probe`: plain functions, no session, to try a node and to show the fleet.

Owns the tools echo, sleep, fail, flaky and pid. Refuses to be more than a probe: it reads no file
and starts nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from tasks.tool import ToolSpec
from worker.upstreams.errors import not_started, permanent, unknown_tool
from worker.upstreams.upstream import Ask, ServerStatus

NAME = "probe"
SLEEP_MAX_S = 3600.0
STEPS_MAX = 1000
FLAKY_KEYS_MAX = 10_000
"""Keys remembered by `flaky`; past it the oldest is forgotten."""


def _tool(
    name: str, description: str, properties: dict[str, Any], required: list[str], hints: dict[str, bool]
) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": description, "inputSchema": schema, "annotations": hints}


_READ = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}
_TEXT, _NUMBER = {"type": "string"}, {"type": "number", "minimum": 0}
DEFINITIONS = (
    _tool("echo", "Answers with its own arguments.", {}, [], _READ),
    _tool(
        "sleep",
        "Sleeps, and reports progress after every step.",
        {
            "seconds": _NUMBER | {"maximum": SLEEP_MAX_S},
            "steps": {"type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": 10},
        },
        ["seconds"],
        _READ,
    ),
    _tool("fail", "Answers with isError and the message.", {"message": _TEXT}, [], _READ),
    _tool(
        "flaky",
        "Fails as not started `times` times for each key, then succeeds: shows retries.",
        {"key": _TEXT, "times": {"type": "integer", "minimum": 0, "default": 2}},
        ["key"],
        {"readOnlyHint": False, "idempotentHint": False, "openWorldHint": False},
    ),
    _tool("pid", "The process id of the node.", {}, [], _READ),
)


class Probe:
    """An upstream without a session."""

    name = NAME

    def __init__(self) -> None:
        self._specs = tuple(ToolSpec(server=NAME, definition=definition) for definition in DEFINITIONS)
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._calls: dict[str, Callable[[dict[str, Any], Ask], Awaitable[str]]] = {
            "echo": self._echo,
            "sleep": self._sleep,
            "fail": self._fail,
            "flaky": self._flaky,
            "pid": self._pid,
        }

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""

    def tools(self) -> tuple[ToolSpec, ...]:
        """Always the same."""
        return self._specs

    def quiet_s(self) -> float | None:
        """It runs in the node: if that is alive, so is this."""
        return None

    def status(self) -> ServerStatus:
        """Always ready."""
        return ServerStatus(name=NAME, kind="builtin", state="ready", tools=len(self._specs))

    async def call(self, tool: str, arguments: dict[str, Any], ask: Ask) -> str:
        """Run one tool.

        Raises:
            UpstreamError: unknown tool, bad arguments, or `flaky` being flaky.
        """
        function = self._calls.get(tool)
        if function is None:
            raise unknown_tool(f"{NAME}.{tool}")
        return await function(arguments, ask)

    async def _echo(self, arguments: dict[str, Any], _ask: Ask) -> str:
        try:
            text = orjson.dumps(arguments).decode()
        except TypeError:
            text = json.dumps(arguments)
        # The arguments are serialised once and spliced in: this is the tool that throughput is measured with.
        quoted = orjson.dumps(text).decode()
        return f'{{"content":[{{"type":"text","text":{quoted}}}],"structuredContent":{text},"isError":false}}'

    async def _sleep(self, arguments: dict[str, Any], ask: Ask) -> str:
        seconds, steps = arguments.get("seconds", 0), arguments.get("steps", 10)
        if not isinstance(seconds, int | float) or not 0 <= seconds <= SLEEP_MAX_S:
            raise permanent("invalid_arguments", f"probe.sleep: seconds must be 0 to {SLEEP_MAX_S:g}, not {seconds!r}")
        if not isinstance(steps, int) or not 1 <= steps <= STEPS_MAX:
            raise permanent("invalid_arguments", f"probe.sleep: steps must be 1 to {STEPS_MAX}, not {steps!r}")
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            ask.on_progress(float(step), float(steps), f"slept {seconds * step / steps:.1f} of {seconds:g} s")
        return _result({"slept_s": seconds})

    async def _fail(self, arguments: dict[str, Any], _ask: Ask) -> str:
        message = str(arguments.get("message", "failed as asked"))
        return orjson.dumps({"content": [{"type": "text", "text": message}], "isError": True}).decode()

    async def _flaky(self, arguments: dict[str, Any], _ask: Ask) -> str:
        key, times = str(arguments.get("key", "")), arguments.get("times", 2)
        if not isinstance(times, int) or times < 0:
            raise permanent("invalid_arguments", f"probe.flaky: times must be a whole number from 0, not {times!r}")
        failed = self._failures.pop(key, 0)
        if failed < times:
            self._failures[key] = failed + 1
            if len(self._failures) > FLAKY_KEYS_MAX:
                self._failures.popitem(last=False)
            raise not_started("flaky", f"probe.flaky: failure {failed + 1} of {times} for key {key!r}, as asked")
        return _result({"key": key, "failures": failed})

    async def _pid(self, _arguments: dict[str, Any], _ask: Ask) -> str:
        return _result({"pid": os.getpid()})


def _result(structured: dict[str, Any]) -> str:
    text = orjson.dumps(structured).decode()
    return orjson.dumps(
        {"content": [{"type": "text", "text": text}], "structuredContent": structured, "isError": False}
    ).decode()
