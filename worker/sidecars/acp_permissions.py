"""What an ACP agent may do of what it asks for, by what the caller said of the run. Pure.

An agent asks only where its own configuration makes it ask: this answers, and cannot make it. Everything that
nobody allowed is denied, or, in the mode `ask`, is a person's to say.
Source: Agent Client Protocol v1, tool calls: kinds of tools, kinds of options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.sidecars.sidecar import ASK

KINDS = frozenset({"read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"})
_LOOKING = frozenset({"read", "search", "think"})
_BY_MODE: Mapping[str, frozenset[str]] = {
    "default": _LOOKING,
    "acceptEdits": _LOOKING | {"edit", "move"},
    "plan": _LOOKING,
    "dontAsk": frozenset(),
}
_ALLOWING = ("allow_once", "allow_always")
_REJECTING = ("reject_once", "reject_always")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Tool:
    """What is known of a tool that the agent wants to use, or uses."""

    kind: str = "other"
    name: str | None = None
    """The agent's own word for it, where it says one."""

    @property
    def called(self) -> str:
        """For a person."""
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Policy:
    """Of one run. Each entry is a kind of ACP's, or else the agent's own name of a tool, in any case."""

    allowed: frozenset[str]
    denied: frozenset[str]
    mode: str | None = None

    @classmethod
    def of(cls, allowed: Iterable[str], denied: Iterable[str], mode: str | None) -> Policy:
        """From the words of a call."""
        return cls(frozenset(map(str.casefold, allowed)), frozenset(map(str.casefold, denied)), mode)

    def denies(self, tool: Tool) -> bool:
        """The caller said no, whatever else is said."""
        return _names(tool, self.denied)

    def leaves_open(self, tool: Tool) -> bool:
        """A person is to say: the mode is `ask`, and the caller named it neither way."""
        return self.mode == ASK and not _names(tool, self.allowed | self.denied)

    def may_not_ask(self, tool: Tool) -> bool:
        """It is used without a question, and that is well: no agent asks for all that only looks."""
        return not self.leaves_open(tool) or tool.kind in _LOOKING

    def allows(self, tool: Tool) -> bool:
        """The answer to a question."""
        if self.denies(tool):
            return False
        return _names(tool, self.allowed) or tool.kind in _BY_MODE.get(self.mode or "", frozenset())


def tool_of(said: Mapping[str, Any], before: Tool | None = None) -> Tool:
    """From a tool call, its update or a question about it; what it does not say is as before.

    The name is what claude-agent-acp puts into `_meta`, or else the title of the first word of it, where that is
    one word: later titles are paths and commands.
    """
    kind = said.get("kind")
    known = before or Tool()
    named = _own_name(said) or known.name
    if named is None and before is None:
        title = said.get("title")
        named = title if isinstance(title, str) and _NAME.fullmatch(title) else None
    return Tool(kind if isinstance(kind, str) and kind in KINDS else known.kind, named)


def option_of(options: Iterable[Any], *, is_allowed: bool, only_once: bool = False) -> str | None:
    """The id of the option that says so, for this once where there is a choice; None where none does.

    `only_once`: a yes that is for ever is none.
    """
    by_kind: dict[str, str] = {}
    for option in options:
        if isinstance(option, dict) and isinstance(option.get("optionId"), str):
            by_kind.setdefault(str(option.get("kind")), option["optionId"])
    kinds = _ALLOWING if is_allowed else _REJECTING
    return next((by_kind[kind] for kind in (kinds[:1] if is_allowed and only_once else kinds) if kind in by_kind), None)


def _names(tool: Tool, entries: frozenset[str]) -> bool:
    """A kind's word means the kind only: a command that is called `read` is no reading."""
    name = (tool.name or "").casefold()
    return tool.kind in entries or (name in entries and name not in KINDS)


def _own_name(said: Mapping[str, Any]) -> str | None:
    meta = said.get("_meta")
    inner = meta.get("claudeCode") if isinstance(meta, dict) else None
    name = inner.get("toolName") if isinstance(inner, dict) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
