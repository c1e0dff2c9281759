"""The HTTP door: credentials, limits, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from orchestrator.api.settings import LOOPBACK_NAMES, ApiSettings, hosts_for
from orchestrator.testing.doors import (
    CLIENT_TOKEN,
    JOIN_TOKEN,
    NODE_TOKEN,
    OPERATOR_TOKEN,
    OTHER_TOKEN,
)
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import door
from tasks.errors import BacklogFull, LedgerDown
from tasks.invocation import Call, Invocation, Principal

ECHO = {"tool": "probe.echo", "arguments": {"text": "hello"}}


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """It is problem+json with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    form: dict[str, object] = answer.json()
    assert (form["status"], form["code"]) == (status, code)
    assert form["trace_id"]
    return form


async def test_no_token_is_told_which_scheme_to_use() -> None:
    """Without credentials the answer is 401 and names the scheme."""
    async with door(token=None) as client:
        answer = await client.get("/v1/tools")
    assert_problem(answer, 401, "not_allowed")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_unknown_token_is_refused() -> None:
    """A token nobody issued opens nothing."""
    async with door(token="nobody") as client:
        assert_problem(await client.get("/v1/tools"), 401, "not_allowed")


@pytest.mark.parametrize(
    ("token", "method", "path", "body"),
    [
        (CLIENT_TOKEN, "POST", "/v1/pauses", {"kind": "pool", "name": "main", "is_paused": True}),
        (CLIENT_TOKEN, "POST", "/v1/nodes/a/state", {"state": "cordoned"}),
        (CLIENT_TOKEN, "POST", "/v1/nodes/a/renewals", {"incarnation": "1"}),
        (CLIENT_TOKEN, "GET", "/v1/blobs/" + "0" * 64, None),
        (JOIN_TOKEN, "GET", "/v1/tools", None),
        (JOIN_TOKEN, "POST", "/v1/nodes/a/renewals", {"incarnation": "1"}),
        (NODE_TOKEN, "POST", "/v1/invocations", ECHO),
        (NODE_TOKEN, "POST", "/v1/nodes/b/renewals", {"incarnation": "1"}),
        (NODE_TOKEN, "POST", "/v1/nodes", {}),
        (OPERATOR_TOKEN, "POST", "/v1/nodes/a/renewals", {"incarnation": "1"}),
    ],
)
async def test_a_token_opens_only_its_own_paths(token: str, method: str, path: str, body: object) -> None:
    """Clients cannot steer, joiners only join, a node speaks for itself alone."""
    async with door(token=token) as client:
        assert_problem(await client.request(method, path, json=body), 403, "forbidden")


async def test_health_needs_no_token_and_metrics_do() -> None:
    """A load balancer may look; a scraper needs a token unless the operator opened it."""
    async with door(token=None) as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        assert_problem(await client.get("/metrics"), 401, "not_allowed")
    async with door(token=None, settings=ApiSettings(is_metrics_open=True)) as client:
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("127.0.0.1:8600", 200), ("LOCALHOST:1", 200)])
async def test_a_foreign_host_name_is_refused_on_loopback(host: str, status: int) -> None:
    """A web page that resolves its own name to 127.0.0.1 gets nothing."""
    async with door(settings=ApiSettings(allowed_hosts=LOOPBACK_NAMES)) as client:
        assert (await client.get("/health", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(("bind", "is_checked"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)])
def test_hosts_are_checked_on_loopback_binds_only(bind: str, is_checked: bool) -> None:
    """Behind a real name, the proxy in front knows the names."""
    assert (hosts_for(bind) is not None) is is_checked


async def test_unknown_path_and_method_are_problems_too() -> None:
    """404 and 405 are problem+json; 405 lists what is possible."""
    async with door() as client:
        assert_problem(await client.get("/v1/nothing"), 404, "no_such_path")
        answer = await client.delete("/v1/invocations")
    assert_problem(answer, 405, "wrong_method")
    assert answer.headers["allow"] == "GET, POST"


async def test_a_wrong_member_is_named_by_its_path() -> None:
    """422 says where the body is wrong."""
    async with door() as client:
        answer = await client.post("/v1/invocations:batch", json={"calls": [ECHO, {"tool": 3, "typo": 1}]})
    form = assert_problem(answer, 422, "invalid_call")
    assert {place["path"] for place in form["errors"]} == {"calls.1.tool", "calls.1.typo"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("query", ["typo=1", "wait=x", "wait=-1", "wait=1&wait=2"])
async def test_a_wrong_query_is_refused(query: str) -> None:
    """A misspelt parameter is an error, not a default."""
    async with door() as client:
        assert_problem(await client.post(f"/v1/invocations?{query}", json=ECHO), 422, "invalid_call")


async def test_only_json_is_read() -> None:
    """A form post, which a web page could send without asking, is refused."""
    async with door() as client:
        answer = await client.post("/v1/invocations", content=b"{}", headers={"Content-Type": "text/plain"})
    assert_problem(answer, 415, "wrong_media_type")


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_over_large_body_is_refused(chunked: bool) -> None:
    """The limit holds with and without a declared length, and is stated."""
    sent: list[int] = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(100):
            sent.append(number)
            yield b" " * 100

    async with door(settings=ApiSettings(body_limit_bytes=1000)) as client:
        content = parts() if chunked else b" " * 10_000
        answer = await client.post("/v1/invocations", content=content, headers={"Content-Type": "application/json"})
    form = assert_problem(answer, 413, "payload_too_large")
    assert "1000" in str(form["detail"])
    assert len(sent) <= 20, "read on, long after the limit"


@pytest.mark.parametrize(("error", "status"), [(LedgerDown("gone"), 503), (BacklogFull(10, 10), 429)])
async def test_a_busy_fleet_says_when_to_come_back(error: Exception, status: int) -> None:
    """429 and 503 carry Retry-After."""

    class Down(FakeFleet):
        async def accept(self, calls: object, principal: Principal) -> list[Invocation]:
            raise error

    async with door(Down()) as client:
        answer = await client.post("/v1/invocations", json=ECHO)
    assert_problem(answer, status, error.code)  # type: ignore[attr-defined]
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_unexpected_error_shows_a_trace_id_and_nothing_else() -> None:
    """A 500 never carries a stack trace; the caller's trace id finds it in the log."""

    class Broken(FakeFleet):
        async def accept(self, calls: object, principal: Principal) -> list[Invocation]:
            raise RuntimeError("the password is hunter2")

    trace = "ab" * 16
    async with door(Broken()) as client:
        answer = await client.post("/v1/invocations", json=ECHO, headers={"traceparent": f"00-{trace}-{'1' * 16}-01"})
    form = assert_problem(answer, 500, "fleet_error")
    assert form["trace_id"] == trace
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text


async def test_another_tenants_invocation_does_not_exist() -> None:
    """Tenants cannot even tell that an id is taken."""
    fleet = FakeFleet()
    [mine] = await fleet.accept([Call("probe.echo")], Principal("alice"))
    async with door(fleet, token=OTHER_TOKEN) as client:
        for path in (f"/v1/invocations/{mine.id}", f"/v1/invocations/{mine.id}/events"):
            assert_problem(await client.get(path), 404, "not_found")
