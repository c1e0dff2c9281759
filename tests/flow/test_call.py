"""The main job, read first: a call from a client, placed, run on a node, answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 40


@pytest.fixture
def http(fleet_url: str, token: str) -> Iterator[httpx.Client]:
    """A client of the HTTP door."""
    with httpx.Client(base_url=fleet_url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        yield client


def call(http: httpx.Client, tool: str, arguments: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Call and wait; the ended Invocation."""
    body = {"tool": tool, "arguments": arguments or {}, **options}
    answer = http.post("/v1/invocations", params={"wait": WAIT_S}, json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    return dict(answer.json())


def history(http: httpx.Client, invocation: str) -> dict[str, Any]:
    """The Invocation as the ledger has it, with every attempt."""
    return dict(http.get(f"/v1/invocations/{invocation}").json())


def test_a_real_tool_answers_through_the_whole_path(http: httpx.Client) -> None:
    """What a server we did not write said comes back as it said it, and the ledger has the attempt."""
    ended = call(http, "time.get_current_time", {"timezone": "Europe/Berlin"})
    assert ended["state"] == "succeeded"
    assert ended["result"]["structuredContent"]["timezone"] == "Europe/Berlin"
    seen = history(http, ended["id"])
    assert [attempt["ending"] for attempt in seen["attempts"]] == ["succeeded"]
    assert seen["attempts"][0]["node"] in {"general-1", "general-2", "builders-1"}
    assert seen["attempts"][0]["started_at"] <= seen["attempts"][0]["ended_at"]


def test_a_project_sticks_to_its_node_and_why_says_so(http: httpx.Client) -> None:
    """Ten calls of one project run where its files are."""
    ids = [call(http, "probe.echo", {"n": n}, project="sticky")["id"] for n in range(10)]
    nodes = {history(http, one)["attempts"][0]["node"] for one in ids}
    assert len(nodes) == 1
    why = http.get(f"/v1/invocations/{ids[-1]}/why").json()
    assert any("affinity" in reason for reason in why["reasons"])


def test_a_required_capability_decides_the_node(http: httpx.Client) -> None:
    """Only one node can build, so that is where it runs."""
    ended = call(http, "probe.pid", requires=["build"])
    assert history(http, ended["id"])["attempts"][0]["node"] == "builders-1"


def test_a_failure_before_the_start_is_tried_again_with_backoff(http: httpx.Client) -> None:
    """Two refusals, then success; each attempt is in the history with its error."""
    retry = {"attempts": 3, "first_wait_s": 0.2, "cap_s": 0.5}
    ended = call(http, "probe.flaky", {"key": "flow", "times": 2}, pool="builders", retry=retry)
    attempts = history(http, ended["id"])["attempts"]
    assert ended["state"] == "succeeded"
    assert [attempt["ending"] for attempt in attempts] == ["failed", "failed", "succeeded"]
    assert attempts[1]["released_at"] >= attempts[0]["ended_at"]


def test_an_error_of_the_tool_is_an_answer_and_a_dead_letter(http: httpx.Client) -> None:
    """`isError` is kept with its content, not repeated, and can be replayed."""
    ended = call(http, "probe.fail", {"message": "no such page"})
    assert ended["state"] == "failed"
    assert ended["result"]["isError"] is True
    assert "no such page" in ended["result"]["content"][0]["text"]
    assert len(history(http, ended["id"])["attempts"]) == 1
    dead = http.get("/v1/dead-letters").json()["items"]
    assert ended["id"] in {letter["id"] for letter in dead}
    replayed = http.post(f"/v1/invocations/{ended['id']}/replay").json()
    assert replayed["replay_of"] == ended["id"]


def test_a_running_call_is_cancelled_on_its_node(http: httpx.Client) -> None:
    """A cancel reaches the tool; the call ends as cancelled long before it would have ended."""
    accepted = http.post("/v1/invocations", json={"tool": "probe.sleep", "arguments": {"seconds": 600}}).json()
    with http.stream("GET", f"/v1/invocations/{accepted['id']}/events") as events:
        for line in events.iter_lines():
            if line == "event: running":
                break
    http.post(f"/v1/invocations/{accepted['id']}/cancel")
    ended = http.get(f"/v1/invocations/{accepted['id']}", params={"wait": WAIT_S}).json()
    assert ended["state"] == "cancelled"


def test_a_repeated_idempotency_key_runs_once(http: httpx.Client) -> None:
    """The second post gives the first Invocation; other arguments under the key are refused."""
    body = {"tool": "probe.echo", "arguments": {"n": 1}}
    keyed = {"Idempotency-Key": "order-17"}
    first = http.post("/v1/invocations", json=body, headers=keyed).json()
    again = http.post("/v1/invocations", json=body, headers=keyed).json()
    other = http.post("/v1/invocations", json={**body, "arguments": {"n": 2}}, headers=keyed)
    assert again["id"] == first["id"]
    assert other.status_code == httpx.codes.CONFLICT
    assert other.json()["code"] == "idempotency_conflict"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"tool": "time.get_current_time", "arguments": {}}, 422, "timezone"),
        ({"tool": "time.get_curent_time", "arguments": {}}, 404, "did you mean 'time.get_current_time'"),
        ({"tool": "probe.echo", "requires": ["biuld"]}, 422, "did you mean 'build'"),
        ({"tool": "probe.echo", "project": "No Such/Project"}, 422, "0-9"),
        ({"tool": "probe.echo", "deadline_s": -1}, 422, "deadline"),
        ({"tool": "probe.echo", "arguments": {"a": "x" * 9_000_000}}, 413, "limit"),
        ({"tool": "probe.echo", "colour": "red"}, 422, "colour"),
        ({"tool": "probe.echo", "pool": "generall"}, 404, "did you mean 'general'"),
    ],
)
def test_bad_input_is_refused_before_it_is_accepted(
    http: httpx.Client, body: dict[str, Any], status: int, says: str
) -> None:
    """Each wrong call is refused with what was wrong and what to do, and nothing is queued."""
    before = http.get("/v1/invocations", params={"limit": 1}).json()["items"]
    answer = http.post("/v1/invocations", json=body)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert http.get("/v1/invocations", params={"limit": 1}).json()["items"] == before
