"""What an MCP client says about a call, as a `Call`."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from orchestrator.front.meta import make_call
from tasks.invocation import Call, Lane

TRACE = "0af7651916cd43dd8448eb211c80319c"
NOW_S = 1000.0


def call(meta: dict[str, Any] | None = None, headers: dict[str, str] | None = None, **params: Any) -> Call:
    """A call of `a.b`."""
    params = {"name": "a.b", "arguments": {"n": 1}, **params} | ({} if meta is None else {"_meta": meta})
    return make_call("a.b", params, headers or {}, now_s=NOW_S)


def test_a_plain_call_carries_its_arguments_and_nothing_else() -> None:
    """The common case has no metadata to store or to send."""
    made = call()
    assert (made.arguments_json, made.meta_json, made.project) == ('{"n":1}', None, None)


def test_requirements_travel_in_meta() -> None:
    """Every key that docs/mcp.md names reaches the Call."""
    made = call(
        {
            "mcpfleet/project": "shop",
            "mcpfleet/requires": ["gpu", "git"],
            "mcpfleet/pool": "big",
            "mcpfleet/lane": "agents",
            "mcpfleet/priority": 9,
            "mcpfleet/delay_s": 5,
            "mcpfleet/deadline_s": 60,
            "mcpfleet/timeout_s": 30,
            "mcpfleet/retry": {"attempts": 7},
            "mcpfleet/idempotency_key": "k1",
            "mcpfleet/parent": "inv-0",
        }
    )
    assert made.parent == "inv-0"
    assert (made.project, made.requires, made.pool, made.lane) == ("shop", {"gpu", "git"}, "big", Lane.AGENTS)
    assert (made.priority, made.not_before, made.expires_at, made.timeout_s) == (9, NOW_S + 5, NOW_S + 60, 30)
    assert (made.retry and made.retry.attempts, made.idempotency_key) == (7, "k1")
    assert made.meta_json is None


@pytest.mark.parametrize(
    ("meta", "key"),
    [
        ({"mcpfleet/projct": "shop"}, "projct"),
        ({"mcpfleet/priority": 11}, "priority"),
        ({"mcpfleet/lane": "fast"}, "lane"),
        ({"mcpfleet/retry": {"attempts": 0}}, "retry.attempts"),
    ],
)
def test_an_unknown_or_wrong_key_is_refused_by_name(meta: dict[str, Any], key: str) -> None:
    """A typing error in a requirement must not run the call without it."""
    with pytest.raises(MCPError) as refused:
        call(meta)
    assert refused.value.code == INVALID_PARAMS
    assert f"mcpfleet/{key}" in refused.value.message


def test_the_project_header_is_the_default_and_meta_beats_it() -> None:
    """A client that cannot set `_meta` can still have a project."""
    headers = {"x-mcpfleet-project": "from-header"}
    assert call(headers=headers).project == "from-header"
    assert call({"mcpfleet/project": "from-meta"}, headers).project == "from-meta"


@pytest.mark.parametrize("where", ["meta", "header"])
def test_the_callers_trace_goes_on(where: str) -> None:
    """One trace id from client to tool, as W3C trace context says it."""
    said = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    made = call(said) if where == "meta" else call(headers=said)
    assert made.trace_id == TRACE
    assert call({"traceparent": "junk"}).trace_id is None


def test_what_belongs_to_this_hop_stays_here_and_the_rest_is_carried() -> None:
    """A tool gets its caller's own metadata and capabilities, not the protocol's bookkeeping."""
    made = call(
        {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
            "progressToken": 1,
            "mcpfleet/project": "shop",
            "com.example/own": [1],
        }
    )
    assert orjson.loads(made.meta_json or "{}") == {
        "_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}, "com.example/own": [1]}
    }


def test_answers_and_state_are_carried() -> None:
    """The second leg of a call that asked for input."""
    said = {"inputResponses": {"name": {"action": "accept"}}, "requestState": "s"}
    assert orjson.loads(call(**said).meta_json or "{}") == said


def test_integers_over_64_bits_keep_their_digits() -> None:
    """Arguments are carried, never rounded."""
    assert call(arguments={"n": 2**70}).arguments_json == f'{{"n":{2**70}}}'
