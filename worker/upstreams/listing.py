"""All tools of one session, page by page, bounded, as the server listed them.

Owns the limits on what a server may list. Refuses to let one bad tool hide the others: it is left
out, and the log says which and why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import mcp_types as types
import orjson
import structlog
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel

from tasks.invocation import TOOL_PATTERN
from tasks.tool import ToolPolicy, ToolSpec

log = structlog.get_logger()

TOOLS_MAX = 10_000
PAGES_MAX = 1000
DEFINITION_BYTES_MAX = 256_000
HEADER_ANNOTATION = b"x-mcp-header"


class RawResult(RootModel[dict[str, Any]]):
    """A result as it came: the SDK checks it against the protocol version, and rebuilds nothing."""


class ListingBroken(Exception):
    """The server's tools/list cannot be used. The message says why."""


async def list_tools(
    session: ClientSession, server: str, policy_of: Callable[[str], ToolPolicy]
) -> tuple[ToolSpec, ...]:
    """Every usable tool of the server; none if it has no tools at all.

    Raises:
        ListingBroken: its pages never end.
        MCPError, ValidationError: as the session raises them.
    """
    capabilities = session.server_capabilities
    if capabilities is not None and capabilities.tools is None:
        return ()
    try:
        listed = await pages(partial(_fetch, session))
    except MCPError as error:
        if error.code == METHOD_NOT_FOUND:
            return ()
        raise
    return usable(listed, server, policy_of)


def usable(listed: list[dict[str, Any]], server: str, policy_of: Callable[[str], ToolPolicy]) -> tuple[ToolSpec, ...]:
    """The tools that can stand in the fleet's list. The first of two with one name is kept."""
    specs: dict[str, ToolSpec] = {}
    for definition in listed:
        name = f"{server}.{definition.get('name')}"
        why = _fault(name, definition, specs)
        if why is not None:
            log.warning("tool_left_out", server=server, tool=name[:200], why=why)
            if why == "too_many":
                break
            continue
        specs[name] = ToolSpec(server=server, definition=definition, policy=policy_of(name))
    return tuple(specs.values())


def _fault(name: str, definition: dict[str, Any], specs: dict[str, ToolSpec]) -> str | None:
    if len(specs) >= TOOLS_MAX:
        return "too_many"
    if not TOOL_PATTERN.fullmatch(name):
        return "name_not_allowed"
    if name in specs:
        return "listed_twice"
    try:
        size = len(orjson.dumps(definition))
    except TypeError:
        return "not_json"
    return "definition_too_large" if size > DEFINITION_BYTES_MAX else None


async def pages(fetch: Callable[[str | None], Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Follow the cursors to the end, but not for ever.

    Raises:
        ListingBroken: a cursor came twice, or there are too many pages.
    """
    tools: list[dict[str, Any]] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(PAGES_MAX):
        page = await fetch(cursor)
        tools.extend(page["tools"])
        cursor = page.get("nextCursor")
        if cursor is None or len(tools) > TOOLS_MAX:
            return tools
        if cursor in seen:
            raise ListingBroken(f"tools/list gave the cursor {cursor[:80]!r} twice; its pages never end")
        seen.add(cursor)
    raise ListingBroken(f"tools/list has more than {PAGES_MAX} pages")


async def _fetch(session: ClientSession, cursor: str | None) -> dict[str, Any]:
    params = types.PaginatedRequestParams(cursor=cursor)
    page = (await session.send_request(types.ListToolsRequest(params=params), RawResult)).root
    # Arguments annotated with `x-mcp-header` must be sent as headers too, and a tool with a wrong annotation
    # must not be used. The session learns both only from its own list_tools, so it lists such a page again.
    if session.protocol_version in MODERN_PROTOCOL_VERSIONS and HEADER_ANNOTATION in orjson.dumps(page["tools"]):
        kept = {tool.name for tool in (await session.list_tools(params=params)).tools}
        page["tools"] = [tool for tool in page["tools"] if tool["name"] in kept]
    return page
