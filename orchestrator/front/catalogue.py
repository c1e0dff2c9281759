"""The fleet's tools as tools/list shows them: their own definitions, named `server.tool`.

Dots are within the MCP rule for tool names (A-Z a-z 0-9 _ - . up to 128, SEP-986). A client whose
model takes no dots must rename them itself, as Claude Code does. Refuses to call anything.
"""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from orchestrator.front.ports import Fleet
from tasks.invocation import Principal

Listed = tuple[str, dict[str, Any]]
"""Sort key (fleet tools before our plain tools, then by name) and definition."""


LISTS_MAX = 256
"""Principals whose list is kept; about 100 KB each with 200 tools."""


class Catalogue:
    """What is listed, page by page; one list per principal is kept until the fleet's list changes."""

    def __init__(self, fleet: Fleet, plain: Sequence[dict[str, Any]], *, page_size: int, bare_names: bool) -> None:
        self._fleet = fleet
        self._plain: list[Listed] = [(f"1{tool['name']}", tool) for tool in plain]
        self._plain_by_name = {tool["name"]: tool for tool in plain}
        self._page_size = page_size
        self._bare_names = bare_names
        self._version = -1
        self._lists: OrderedDict[Principal, list[Listed]] = OrderedDict()
        self._bare: dict[str, str] = {}

    def page(self, principal: Principal, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """One page and the cursor of the next. The cursor names a tool, so that it survives changes.

        Raises:
            MCPError: -32602, the cursor is not one of ours.
        """
        listed = self._list(principal)
        start = 0 if cursor is None else bisect_right(listed, _decode(cursor), key=lambda entry: entry[0])
        page = listed[start : start + self._page_size]
        is_last = start + self._page_size >= len(listed)
        return [definition for _, definition in page], None if is_last else _encode(page[-1][0])

    def fleet_name(self, listed_name: str, principal: Principal) -> str:
        """The `server.tool` name of what a client calls `listed_name`."""
        if not self._bare_names:
            return listed_name
        self._list(principal)
        return self._bare.get(listed_name, listed_name)

    def input_schema(self, listed_name: str) -> Mapping[str, Any] | None:
        """By name, for the check of `Mcp-Param-*` headers; None when there is no such tool."""
        plain = self._plain_by_name.get(listed_name)
        if plain is not None:
            schema: Mapping[str, Any] = plain["inputSchema"]
            return schema
        spec = self._fleet.tool(self._bare.get(listed_name, listed_name))
        return None if spec is None else spec.input_schema

    def _list(self, principal: Principal) -> list[Listed]:
        if self._fleet.tools_version != self._version:
            self._version = self._fleet.tools_version
            self._lists.clear()
            self._bare.clear()
        who = replace(principal, credential="")  # a JWT's is another every few minutes
        listed = self._lists.get(who)
        if listed is None:
            listed = self._lists[who] = sorted([*self._own(principal), *self._plain], key=lambda entry: entry[0])
            if len(self._lists) > LISTS_MAX:
                self._lists.popitem(last=False)
        return listed

    def _own(self, principal: Principal) -> list[Listed]:
        listed = []
        for view in self._fleet.tools(principal):
            name = view.name
            if self._bare_names:
                name = view.definition["name"]
                self._bare[name] = view.name
            listed.append((f"0{name}", {**view.definition, "name": name}))
        return listed


def _encode(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode()


def _decode(cursor: str) -> str:
    try:
        return b64decode(cursor, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise MCPError(INVALID_PARAMS, f"cursor {cursor[:80]!r} is not one that tools/list gave") from error
