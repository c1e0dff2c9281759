"""An approval: a question of a run to a person, and the answer that binds to its exact arguments.

Owns the words, the one form in which arguments are digested, and how they are shown to a person. Refuses to
know who asks and where answers are kept. See docs/adr/0015-approvals.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any
from unicodedata import category

from pydantic_core import from_json

ARGUMENTS_MAX_BYTES = 200_000
"""Of what is asked for, in its canonical form. What nobody can read whole, nobody can allow."""
REASON_MAX_CHARS = 1000
AROUND = 20
"""Levels of what carries the arguments: with these they must still be readable."""
BASIC_MAX = 0xFFFF
"""Of what \\uXXXX can name."""
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Printable by their category, and drawn as nothing."""


class Verdict(StrEnum):
    """What a person says."""

    ALLOW = "allow"
    DENY = "deny"


class Taken(StrEnum):
    """What the node made of a question, in the end."""

    ALLOW = "allow"
    DENY = "deny"
    EXPIRED = "expired"
    """Nobody's answer came in time: denied."""


@dataclass(frozen=True, slots=True)
class Question:
    """A tool that an agent wants to use, and with what."""

    id: str
    tool: str
    """In the words of the agent."""
    arguments_json: str
    """Canonical: what is digested, and what runs where it is allowed."""
    arguments_sha256: str
    asked_at: float
    expires_at: float
    """Wall clock. Without an answer until then it is denied."""
    frees_slot: bool = False
    """The run's slot is given to others while it waits."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What becomes of a question."""

    is_allowed: bool
    reason: str = ""
    """Why not; the agent is told."""


def canonical(arguments: Mapping[str, Any]) -> str:
    """The one form of these arguments: keys sorted, no spaces, all but ASCII escaped.

    ASCII, so that it is the same bytes everywhere, and nothing in it can act on a terminal.

    Raises:
        ValueError, TypeError: they are no JSON that every door can carry (NaN, half a character, too deep).
    """
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"), allow_nan=False)
    from_json("[" * AROUND + text + "]" * AROUND)
    return text


def digest(arguments_json: str) -> str:
    """SHA-256 of the canonical form, in hex."""
    return sha256(arguments_json.encode("ascii")).hexdigest()


def is_sound(question: Question) -> bool:
    """Whether it is what an honest node asks: canonical arguments of a readable size, with their own digest."""
    text = question.arguments_json
    if len(text) > ARGUMENTS_MAX_BYTES or "\x00" in question.tool:
        return False
    try:
        return digest(text) == question.arguments_sha256 and canonical(json.loads(text)) == text
    except (ValueError, TypeError, RecursionError):
        return False


def shown(text: str) -> str:
    """The text for a person: lines and printable characters as they are, all else escaped.

    Escaped are control characters, what turns the direction of writing, what has no width, odd spaces: whatever
    could make a reader see something else than what would run.
    """
    return "".join(char if char == "\n" or _is_seen(char) else _escaped(char) for char in text)


def _is_seen(char: str) -> bool:
    return char.isprintable() and (char.isascii() or not _is_hidden(char))


def _is_hidden(char: str) -> bool:
    """Marks that stand on another character, and fillers: printable by name, and nothing to see."""
    return char in _FILLERS or category(char) in {"Mn", "Me"}


def shown_line(text: str) -> str:
    """The same on one line."""
    return shown(text).replace("\n", "\\n")


def _escaped(char: str) -> str:
    point = ord(char)
    if point > BASIC_MAX:
        return f"\\U{point:08x}"
    return {"\t": "\\t", "\r": "\\r"}.get(char, f"\\u{point:04x}")


class ApprovalState(StrEnum):
    """Where a question stands. Never stored: it follows from the row, the attempt and the time."""

    WAITING = "waiting"
    ALLOWED = "allowed"
    DENIED = "denied"
    EXPIRED = "expired"
    """Nobody's answer came in time; the agent was told no."""
    OVER = "over"
    """The attempt that asked has ended, or was superseded, before anybody answered."""
