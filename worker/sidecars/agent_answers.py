"""What a run's events, Result and files are to whoever called: lines of progress, an MCP answer, a failure.

Owns the form of the tool and of its answer. Refuses to know a runtime, and when anything runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import orjson

from tasks.approval import shown_line
from tasks.errors import FleetError, Permanent
from worker.sidecars.capsule import Capsule
from worker.sidecars.places import Place
from worker.sidecars.run_arguments import RunArguments
from worker.sidecars.sidecar import Answered, Asked, Began, Ending, Event, Result, Retrying, Said, ToolBegan
from worker.upstreams.errors import UpstreamError, not_started, permanent
from worker.upstreams.upstream import Ask

RUN = "run"
ABOUT_CHARS = 200
STRUCTURED = {
    "type": "object",
    "properties": {
        "ending": {"type": "string"},
        "fault": {"type": ["string", "null"]},
        "session_id": {"type": ["string", "null"]},
        "turns": {"type": "integer"},
        "usage": {"type": "object"},
        "cost_usd": {"type": ["number", "null"]},
        "denials": {"type": "array", "items": {"type": "string"}},
        "structured": {},
        "base": {"type": "string", "description": "The commit that it began from."},
        "files": {"type": "integer", "description": "How many it changed."},
        "patch": {"type": "string", "description": "For git apply, on top of base."},
        "branch": {"type": "string", "description": "Where it was pushed."},
        "reached": {"type": "object", "description": "By destination: tunnels, and bytes each way."},
        "not_reached": {"type": "object", "description": "Destinations that it asked for in vain, and why."},
        "resumed": {"type": "integer", "description": "How often it was interrupted, and went on."},
        "resumed_from": {"type": "array", "items": {"type": "string"}, "description": "The nodes it was on then."},
        "ran_by": {"type": "string", "description": "The sidecar that ran it: its session goes on there."},
        "fell_back": {"type": "string", "description": "Why that is not the one that was called."},
    },
}


def numbered(ask: Ask) -> Ask:
    """Lines of all who tell of a run, counted together: MCP wants progress to grow."""
    count = itertools.count(1)
    return dataclasses.replace(ask, on_progress=lambda _, of, line: ask.on_progress(float(next(count)), of, line))


def line_of(event: Event) -> str | None:
    """An event as a line for whoever watches; None where it is no news."""
    if isinstance(event, Began):
        return f"session {event.session_id} with {event.model}"
    if isinstance(event, Said):
        return None if event.is_part or not event.text.strip() else event.text
    if isinstance(event, ToolBegan):
        return f"{event.name}: {event.about}" if event.about else event.name
    if isinstance(event, Asked):
        asked = event.question
        about = shown_line(asked.arguments_json)[:ABOUT_CHARS]
        return f"waits for a person: may it use {asked.tool} {about}? mcpfleet approvals show {asked.id}"
    if isinstance(event, Answered):
        permission = event.permission
        return f"{event.tool} is allowed" if permission.is_allowed else f"{event.tool} is denied: {permission.reason}"
    if isinstance(event, Retrying):
        return f"the provider answered {event.status or 'nothing'}; try {event.attempt + 1} in {event.after_s:.1f} s"
    return None


def of_run(sidecar: str, left: Capsule | None, why: str | None) -> dict[str, Any]:
    """Whose work it was, why not that of the one that was called, and how often it was interrupted."""
    said: dict[str, Any] = {"ran_by": sidecar}
    if why is not None:
        said["fell_back"] = why
    if left is not None:
        said |= {"resumed": len(left.was_on), "resumed_from": list(left.was_on)}
    return said


async def kept(place: Place, *, push: bool) -> dict[str, Any]:
    """What it did. The agent has run: where this fails, nothing may be run again for it, nor its answer be lost."""
    try:
        return await place.results(push=push)
    except FleetError as error:
        return {"files_error": {"code": error.code, "message": error.message}}


def of_workspace(error: FleetError) -> UpstreamError:
    """What went wrong with the project's files before the agent began, or with taking its work out."""
    if isinstance(error, UpstreamError):
        return error
    make = permanent if isinstance(error, Permanent) else not_started
    return make(error.code, error.message)


def answered(result: Result, done: dict[str, Any]) -> str:
    """An MCP CallToolResult as JSON text. Source: MCP 2026-07-28, tools, `structuredContent`."""
    structured = {
        "ending": result.ending,
        "fault": result.fault,
        "session_id": result.session_id,
        "turns": result.turns,
        "usage": dataclasses.asdict(result.usage),
        "cost_usd": result.cost_usd,
        "denials": list(result.denials),
        "structured": result.structured,
        **done,
    }
    content = [{"type": "text", "text": result.text}]
    is_error = result.ending is not Ending.SUCCEEDED
    return _json({"content": content, "structuredContent": structured, "isError": is_error})


def _json(answer: dict[str, Any]) -> str:
    """Half a character (a lone surrogate), which models do say, is replaced: no door could carry it."""
    try:
        return orjson.dumps(answer).decode()
    except TypeError:
        text = json.dumps(answer, default=str, ensure_ascii=False)
        return text.encode("utf-8", "replace").decode()


def definition() -> dict[str, Any]:
    """Of the tool `run`, as MCP lists it."""
    schema = RunArguments.model_json_schema()
    schema.pop("title", None)
    return {
        "name": RUN,
        "title": "Run a coding agent",
        "description": "Runs a coding agent in a workspace of its own and answers with what it said and did.",
        "inputSchema": schema,
        "outputSchema": STRUCTURED,
        "annotations": {"readOnlyHint": False, "idempotentHint": False, "openWorldHint": True},
    }
