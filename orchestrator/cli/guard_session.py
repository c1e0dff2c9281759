"""AuthGuardian as the command line speaks to it: an MCP server like any other, by the SDK's own client.

Owns how what goes wrong is said. Synchronous outside, as every command is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent, TextResourceContents

from orchestrator.cli.exits import Refused
from orchestrator.cli.guard_client import PATH
from orchestrator.cli.settings import Target
from tasks.errors import FleetError, NotAllowed, OrchestratorDown

CONNECT_S, ANSWER_S = 5.0, 90.0
"""An answer may wait for a person for most of a minute."""


def called(target: Target, tool: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """One tool's structured answer.

    Raises:
        Refused: it said what is wrong.
        OrchestratorDown, NotAllowed
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    result = _run(target, lambda client: client.call_tool(tool, given))
    assert isinstance(result, CallToolResult)
    if result.is_error or result.structured_content is None:
        said = " ".join(block.text for block in result.content if isinstance(block, TextContent))
        code = str((result.meta or {}).get("code", ""))
        raise Refused(said, status=_STATUS.get(code, 422), code=code)
    return dict(result.structured_content)


def content_of(target: Target, uri: str) -> dict[str, Any]:
    """One resource's content. Raises as `called`."""
    result = _run(target, lambda client: client.read_resource(uri))
    content = result.contents[0]
    assert isinstance(content, TextResourceContents)
    return dict(json.loads(content.text))


_STATUS = {"forbidden": 403, "not_found": 404, "grant_answered": 409, "other_terms": 409}


def _run(target: Target, act: Any) -> Any:  # noqa: ANN401 - whatever the act answers
    try:
        return asyncio.run(_connected(target, act))
    except BaseExceptionGroup as group:  # the SDK's client speaks from several tasks
        raise _said(target, _first(group)) from group
    except (MCPError, httpx2.HTTPError) as error:
        raise _said(target, error) from error


async def _connected(target: Target, act: Any) -> Any:  # noqa: ANN401
    headers = {"Authorization": f"Bearer {target.token}"}
    timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http:
        answered = await http.post(f"{target.url}{PATH}", json={})  # says in plain HTTP why nobody is let in
        if answered.status_code in {401, 403, 404, 421}:
            raise _problem(target, answered)
        async with Client(streamable_http_client(f"{target.url}{PATH}", http_client=http)) as client:
            return await act(client)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(target: Target, error: BaseException) -> BaseException:
    match error:
        case FleetError():
            return error
        case MCPError():
            return Refused(str(error), status=422, code="mcp")
        case httpx2.HTTPError() | OSError():
            return OrchestratorDown(target.url, str(error) or type(error).__name__)
        case _:
            return error


def _problem(target: Target, answer: httpx2.Response) -> FleetError:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200] or answer.reason_phrase
    if answer.status_code == 401:  # noqa: PLR2004
        return NotAllowed(f"{target.url}: {detail}")
    return Refused(f"{target.url}{PATH}: {detail}", status=answer.status_code, code="")
