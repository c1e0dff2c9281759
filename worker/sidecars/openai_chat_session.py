"""The conversation of a run, kept in its HOME so that a later run can go on from it.

One message a line, as JSON. Written only when every tool call in it has its answer: the API refuses a
conversation without. HOME is the agent's to write, so it is reached as a stranger's folder, and what is read is
checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker.workspaces.tree import NotThere, Tree

FOLDER = ".mcpfleet/chats"
FORMAT = 1
"""Of what is kept: another one is not read."""
SESSION_MAX_BYTES = 64_000_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_ROLES = frozenset({"system", "user", "assistant", "tool"})


def save(home: Path, session: str, messages: list[dict[str, Any]]) -> NotThere | None:
    """Keep it under its id; why not, where that cannot be."""
    if not _ID.fullmatch(session):
        return NotThere(f"{session[:80]!r} is no id of a session")
    text = "".join(f"{json.dumps(message)}\n" for message in messages)
    return Tree(home, most_bytes=SESSION_MAX_BYTES).write(path_of(session), text)


def load(home: Path, session: str | None) -> list[dict[str, Any]] | NotThere:
    """The conversation as it was kept."""
    if session is None or not _ID.fullmatch(session):
        return NotThere(f"{str(session)[:80]!r} is no id of a session; begin a new one")
    text = Tree(home, most_bytes=SESSION_MAX_BYTES).read(path_of(session))
    if isinstance(text, NotThere):
        return NotThere(f"no session {session} is kept here ({text.why}); begin a new one")
    try:
        said = [json.loads(line) for line in text.splitlines()]
    except (ValueError, RecursionError):
        said = []
    if not said or not all(isinstance(each, dict) and each.get("role") in _ROLES for each in said):
        return NotThere(f"what is kept of session {session} is no conversation; begin a new one")
    return said


def path_of(session: str) -> str:
    """Where it is in HOME; `{}` for all of them."""
    return f"{FOLDER}/{session}.jsonl"


def has_answers(text: str, calls: Iterable[str]) -> bool:
    """Each of these calls of tools is answered in it."""
    return all(f'"tool_call_id": {json.dumps(call)}' in text for call in calls)


def begins_a_tool(text: str) -> bool:
    """A tool is called in it. In what somebody said, the quotes would be escaped."""
    return '"tool_calls": ' in text
