"""What is JSON and no message of MCP is refused in one sentence, and ends nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest

from orchestrator.front.frames import refusal_of
from orchestrator.front.stdio import Bridge
from orchestrator.testing.front import front_under_test, legacy_headers

NO_MESSAGES = [
    (5, "a JSON object"),
    ([], "a JSON object"),
    ({}, '"jsonrpc"'),
    ({"jsonrpc": "2.0", "id": 1}, '"method" must be given'),
    ({"jsonrpc": "2.0", "id": 1, "method": []}, '"method" must be text'),
    ({"jsonrpc": "2.0", "id": {"a": 1}, "method": "tools/list"}, '"id"'),
    ({"jsonrpc": "2.0", "id": True, "method": "tools/list"}, '"id"'),
    ({"jsonrpc": "2.0", "id": 2**63, "method": "tools/list"}, '"id"'),
    ({"id": -(2**63) - 1}, '"jsonrpc"'),
    ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]}, '"params"'),
    ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []}, '"params"'),
]


@pytest.mark.parametrize(
    ("form", "said"), [*NO_MESSAGES, ({"jsonrpc": "2.0", "id": "\ud800", "method": "tools/list"}, '"id"')]
)
def test_what_is_no_message_is_refused_in_one_sentence(form: object, said: str) -> None:
    """-32600, with the id where it could be read."""
    refusal = refusal_of(form)
    assert refusal is not None
    assert refusal["error"]["code"] == -32600
    assert said in refusal["error"]["message"]
    assert "\n" not in refusal["error"]["message"]
    assert refusal["id"] in (None, 1)
    assert orjson.dumps(refusal)


@pytest.mark.parametrize(
    "form",
    [
        {"jsonrpc": "2.0", "id": "a", "method": "ping"},
        {"jsonrpc": "2.0", "id": 0, "method": "tools/list", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "m"}},
    ],
)
def test_a_message_passes(form: object) -> None:
    """Requests, notifications and responses."""
    assert refusal_of(form) is None


async def test_what_is_no_message_does_not_end_a_bridge() -> None:
    """A client over standard input that errs once keeps its other calls."""
    said: list[bytes] = []

    async def write(line: bytes) -> None:
        said.append(line)

    async def lines() -> AsyncIterator[bytes]:
        for form, _ in NO_MESSAGES:
            yield json.dumps(form).encode()

    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(202))) as http:
        await Bridge(http, "http://fleet/mcp", write).carry(lines())
    assert [json.loads(line)["error"]["code"] for line in said] == [-32600] * len(NO_MESSAGES)


async def test_what_is_no_message_is_answered_over_http() -> None:
    """400, never 500; also where it comes with the name of a session."""
    async with front_under_test(legacy_sessions=False) as it, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        for form, _ in NO_MESSAGES:
            answer = await http.post(it.url, json=form, headers={**legacy_headers(), "Mcp-Session-Id": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600), form
