"""What an ACP agent asks for, put to a person: the exact words of the question, and an answer for just this once.

Owns the questions of one run that are open. Refuses to allow what could not be allowed once: an agent keeps to
itself what it was allowed for ever. The agent holds the arguments, so a yes binds only as far as it is honest;
`acp_words` notices another input of the same tool than the one that was shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.approval import Permission
from worker.sidecars.acp_permissions import Policy, Tool, option_of
from worker.sidecars.sidecar import Ask

_CANCELLED = {"outcome": "cancelled"}


class Questions:
    """Of one run."""

    def __init__(self, policy: Policy, ask: Ask | None) -> None:
        """`ask` None: the policy alone answers."""
        self._policy, self._ask = policy, ask
        self._open: set[asyncio.Task[Permission]] = set()

    async def allowed(self, tool: Tool, arguments: Mapping[str, Any], options: Iterable[Any]) -> bool | None:
        """None: the run is to end, and nobody answers any more."""
        if self._ask is None or not self._policy.leaves_open(tool):
            return self._policy.allows(tool)
        if option_of(options, is_allowed=True, only_once=True) is None:
            return False
        asking = asyncio.ensure_future(self._ask(tool.called, arguments))
        self._open.add(asking)
        try:
            await asyncio.wait({asking})
        finally:
            self._open.discard(asking)
            asking.cancel()
        return None if asking.cancelled() else asking.result().is_allowed

    def outcome(self, options: Iterable[Any], *, is_allowed: bool | None) -> dict[str, str]:
        """In ACP's words."""
        if is_allowed is None:
            return _CANCELLED
        chosen = option_of(options, is_allowed=is_allowed, only_once=self._ask is not None)
        return _CANCELLED if chosen is None else {"outcome": "selected", "optionId": chosen}

    def withdraw(self) -> None:
        """All that are open: the run is to end."""
        for asking in self._open:
            asking.cancel()


def arguments_of(call: Mapping[str, Any], given: object) -> dict[str, Any]:
    """All that a person is to know: what the question says, and the tool's own input where that says something else.

    `given`: the input of the tool call, as its updates had it until now. What the call shows (`content`) is told
    where neither has any words.
    """
    asked = call.get("rawInput")
    names = ("kind", "title", "rawInput") if asked or given else ("kind", "title", "content", "locations")
    said = {name: call[name] for name in names if call.get(name)}
    if given and asked != given:
        said["input"] = given
    return said
