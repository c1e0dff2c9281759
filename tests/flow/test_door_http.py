"""The HTTP door: plain JSON over HTTP, against a real fleet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

WITHIN_S = 40


@pytest.fixture
def http(fleet_url: str, token: str) -> Iterator[httpx.Client]:
    """A client with the fleet's token."""
    with httpx.Client(base_url=fleet_url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        yield client


def accepted(http: httpx.Client, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> str:
    """The id of a call that was accepted."""
    answer = http.post("/v1/invocations", json={"tool": tool, "arguments": arguments or {}, **options})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/invocations/{answer.json()['id']}"
    return str(answer.json()["id"])


def ended(http: httpx.Client, invocation_id: str) -> dict[str, Any]:
    """It, once it ended."""
    view = http.get(f"/v1/invocations/{invocation_id}", params={"wait": WITHIN_S}).json()
    assert view["ended_at"] is not None, view
    return dict(view)


def test_accepted_at_once_and_answered_when_asked(http: httpx.Client) -> None:
    """202 with a Location; the result is there later, and to anyone with the id."""
    view = ended(http, accepted(http, "time.get_current_time", {"timezone": "UTC"}))
    assert view["state"] == "succeeded"
    assert view["result"]["structuredContent"]["timezone"] == "UTC"


def test_an_idempotency_key_is_accepted_once(http: httpx.Client) -> None:
    """The same key and call gives the same Invocation; another call under it is refused."""
    headers = {"Idempotency-Key": "http-door-once"}
    first, second = (
        http.post("/v1/invocations", json={"tool": "probe.echo", "arguments": {"n": 1}}, headers=headers)
        for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]
    other = http.post("/v1/invocations", json={"tool": "probe.echo", "arguments": {"n": 2}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def test_the_event_stream_tells_the_whole_story(http: httpx.Client) -> None:
    """Server-sent events from acceptance to end; coming back with Last-Event-ID skips what was seen."""
    invocation_id = accepted(http, "probe.sleep", {"seconds": 1, "steps": 2})
    kinds, ids = read_stream(http, invocation_id, {})
    assert kinds[0] == "accepted"
    assert kinds[-1] == "ended"
    assert "progress" in kinds
    again, _ = read_stream(http, invocation_id, {"Last-Event-ID": ids[-1]})
    assert again == ["ended"]


def read_stream(http: httpx.Client, invocation_id: str, headers: dict[str, str]) -> tuple[list[str], list[str]]:
    """Kinds and ids of a stream that ends."""
    with http.stream("GET", f"/v1/invocations/{invocation_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = list(answer.iter_lines())
    return [one[7:] for one in lines if one.startswith("event: ")], [one[4:] for one in lines if one.startswith("id: ")]


def test_a_chain_is_one_request(http: httpx.Client) -> None:
    """The next call is accepted when the one before succeeded, with its result."""
    then = [{"tool": "probe.echo", "arguments": {}, "into": "before", "id": "http-door-chain-2"}]
    accepted(http, "time.get_current_time", {"timezone": "UTC"}, id="http-door-chain-1", then=then)
    body = {"ids": ["http-door-chain-1"], "timeout_s": WITHIN_S}
    assert http.post("/v1/invocations:wait", json=body).json()["ended"][0]["state"] == "succeeded"
    assert "UTC" in str(ended(http, "http-door-chain-2")["result"])


def test_listings_page_to_the_end(http: httpx.Client) -> None:
    """Following `next` shows every Invocation of a project exactly once, newest first."""
    calls = [{"tool": "probe.echo", "arguments": {"n": n}, "project": "paged"} for n in range(7)]
    made = [one["id"] for one in http.post("/v1/invocations:batch", json={"calls": calls}).json()["items"]]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/invocations", params={"project": "paged", "limit": 3, **cursor}).json()
        seen += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert sorted(seen) == sorted(made)
    assert len(seen) == 7


def test_the_fleet_shows_itself(http: httpx.Client) -> None:
    """Tools, nodes, pools, queues, backlog, metrics and the document answer."""
    for path in ("/v1/tools", "/v1/nodes", "/v1/pools", "/v1/queues", "/v1/backlog", "/v1/dead-letters"):
        assert http.get(path).status_code == 200, path
    assert http.get("/v1/tools/time.get_current_time").json()["definition"]["inputSchema"]
    assert "mcp_requests_total" in http.get("/metrics").text
    assert http.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_what_ended_badly_can_be_replayed(http: httpx.Client) -> None:
    """A dead letter keeps its reason; replay makes a new Invocation linked to the old."""
    failed = ended(http, accepted(http, "probe.fail"))
    letters = http.get("/v1/dead-letters", params={"limit": 500}).json()["items"]
    assert failed["id"] in {one["id"] for one in letters}
    answer = http.post("/v1/dead-letters:replay", json={"ids": [failed["id"]]})
    assert answer.status_code == 202
    assert answer.json()["items"][0]["replay_of"] == failed["id"]


def test_a_paused_project_waits(http: httpx.Client) -> None:
    """Nothing of a paused project starts; it goes on when resumed."""
    pause = {"kind": "project", "name": "stopped", "is_paused": True}
    assert http.post("/v1/pauses", json=pause).status_code == 204
    invocation_id = accepted(http, "probe.echo", {"n": 1}, project="stopped")
    view = http.get(f"/v1/invocations/{invocation_id}", params={"wait": 0.5}).json()
    assert view["state"] == "waiting"
    assert http.post("/v1/pauses", json={**pause, "is_paused": False}).status_code == 204
    assert ended(http, invocation_id)["state"] == "succeeded"


def test_a_call_that_names_its_parent_is_one_of_its_tree(http: httpx.Client) -> None:
    """The parent stands in what is shown; an unknown one, and one too deep, is refused and nothing is accepted."""
    family = [accepted(http, "probe.echo", {"n": 0})]
    for number in range(1, 5):
        family.append(accepted(http, "probe.echo", {"n": number}, parent=family[-1]))
    last = ended(http, family[-1])
    assert (last["parent"], last["root"], last["depth"]) == (family[-2], family[0], 4)
    for parent, status, code in ((family[-1], 422, "spawn_limit"), ("no-such-one", 404, "not_found")):
        refused = http.post("/v1/invocations", json={"tool": "probe.echo", "parent": parent})
        assert (refused.status_code, refused.json()["code"]) == (status, code)
