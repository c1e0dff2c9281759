"""Ids as people type them: the last eight characters, or any unique ending.

A UUIDv7 begins with the time, so ids made together begin alike; they end at random.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestrator.cli.exits import BadInput
from tasks.errors import NotFound

SHORT = 8
SHORTEST = 4
_FULL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHOWN = 4


def short(invocation_id: str) -> str:
    """What tables show."""
    return invocation_id[-SHORT:]


def is_full(text: str) -> bool:
    """Whether nothing has to be looked up."""
    return _FULL.fullmatch(text) is not None


def find(text: str, known: Iterable[str], kind: str = "invocation") -> str:
    """The one id that is, or ends with, `text`.

    Raises:
        BadInput: too short, or several end so.
        NotFound: none does.
    """
    wanted = text.lower().removeprefix("…")
    if len(wanted) < SHORTEST:
        raise BadInput(f"{text!r} is too short for an id; give at least its last {SHORTEST} characters")
    found: list[str] = []
    for candidate in known:
        if candidate in (text, wanted):
            return candidate
        if candidate.endswith(wanted):
            found.append(candidate)
    if not found:
        raise NotFound(f"{kind} ending with", text)
    if len(found) > 1:
        endings = ", ".join(candidate[-SHORT - SHORTEST :] for candidate in found[:_SHOWN])
        raise BadInput(f"{len(found)} {kind}s end with {text!r} ({endings}); give more characters")
    return found[0]
