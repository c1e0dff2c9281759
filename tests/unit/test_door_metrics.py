"""Doors: what is counted of requests, under which names, and how it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from orchestrator.api.app import create_app
from orchestrator.api.settings import ApiSettings
from orchestrator.happenings import Accepted, AttemptReleased, Ended, Happening
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.doors import ApiMeter, DoorMetrics, MeasuredMcp
from orchestrator.observability.metrics import Metrics
from orchestrator.testing import http
from orchestrator.testing.doors import OPERATOR_TOKEN
from orchestrator.testing.fleet import FakeFleet
from tasks.invocation import Call, Invocation, Lane, Principal, State
from tasks.labels import OTHER, TOOLS_MAX, Bounded
from tasks.outcome import Outcome
from tasks.testing.clock import FakeClock

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Doors:
    """A registry, its door metrics, and how many calls a door could not take."""

    def __init__(self) -> None:
        self.refused = 0
        self.registry = CollectorRegistry()
        self.metrics = DoorMetrics(self.registry, FakeClock(), self._refuse)

    def _refuse(self) -> None:
        self.refused += 1

    def count(self, operation: str, status: str, door: str = "api") -> float | None:
        labels = {"door": door, "operation": operation, "status": status}
        return self.registry.get_sample_value("mcpfleet_door_requests_total", labels)


@pytest.fixture
def doors() -> Doors:
    """New ones."""
    return Doors()


@pytest.fixture
async def client(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The real application over a fake fleet, counted there."""

    def counted(*given: object, **named: object) -> object:
        return create_app(*given, **named, meter=ApiMeter(doors.metrics), registry=doors.registry)  # type: ignore[arg-type]

    monkeypatch.setattr(http, "create_app", counted)
    fleet = FakeFleet()
    transport = httpx.ASGITransport(http.fake_app(fleet, ApiSettings()), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}", "traceparent": TRACEPARENT}
    async with httpx.AsyncClient(transport=transport, base_url=http.BASE_URL, headers=headers) as asking:
        yield asking
    await fleet.close()


async def test_requests_are_counted_by_operation_and_never_by_path(client: httpx.AsyncClient, doors: Doors) -> None:
    """Whatever id a caller makes up is one series; a method that the path does not know has none of its own."""
    for number in range(5):
        await client.get(f"/v1/invocations/{number:032x}")
    await client.get("/v1/tools")
    await client.put("/v1/tools", json={})
    await client.get("/v1/nodes", headers={"Authorization": "Bearer wrong"})
    assert doors.count("show", "4xx") == 5
    assert doors.count("list_tools", "2xx") == 1
    assert doors.count(OTHER, "4xx") == 1
    assert doors.count("list_nodes", "4xx") == 1


async def test_a_scraper_that_can_read_exemplars_gets_trace_ids(client: httpx.AsyncClient) -> None:
    """By content negotiation: OpenMetrics with the trace of the request, else the older format without."""
    await client.get("/v1/tools")
    modern = await client.get("/metrics", headers={"accept": OPENMETRICS})
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert '# {trace_id="0af7651916cd43dd8448eb211c80319c"}' in modern.text
    assert modern.text.endswith("# EOF\n")
    plain = await client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in plain.text


async def test_nodes_are_shown_to_prometheus_as_targets(client: httpx.AsyncClient) -> None:
    """A bare list of groups, as HTTP service discovery wants it; a node without an address is none."""
    answer = await client.get("/v1/targets")
    assert answer.status_code == 200
    assert answer.json() == []


def test_a_call_that_a_door_could_not_take_is_told(doors: Doors) -> None:
    """Of 5xx, and of operations that place calls only."""
    for operation, status in (("call", 503), ("call", 422), ("list_nodes", 503), ("call_many", 500)):
        doors.metrics.count("api", operation, status, 0.0, None)
    assert doors.refused == 2


@pytest.mark.parametrize(
    ("method", "status", "operation", "word"),
    [("tools/call", 200, "tools/call", "2xx"), ("x" * 99, 404, OTHER, "4xx"), (None, None, OTHER, "gone")],
)
async def test_mcp_is_counted_by_method(
    doors: Doors, method: str | None, status: int | None, operation: str, word: str
) -> None:
    """A method of MCP is a label, whatever else a client sends is not; a caller that went first is `gone`."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["the.method"] = method
        if status is not None:
            await send({"type": "http.response.start", "status": status, "headers": []})

    async def nothing(_message: object = None) -> None:
        pass

    await MeasuredMcp(app, doors.metrics, "the.method", "the.trace")({"type": "http"}, nothing, nothing)  # type: ignore[arg-type]
    assert doors.count(operation, word, "mcp") == 1


def test_a_fleet_of_a_thousand_tools_has_a_bounded_scrape() -> None:
    """The first so many have a series of their own, the rest one together, and nothing is left out of the sum."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, LiveCalls(FakeClock()))
    for number in range(TOOLS_MAX + 800):
        metrics.hear(Ended(f"i{number}", State.SUCCEEDED, 0.0, f"server.tool_{number}", Outcome("succeeded")))
    [requests] = [family for family in registry.collect() if family.name == "mcp_requests"]
    values = {sample.labels["tool"]: sample.value for sample in requests.samples if sample.name.endswith("_total")}
    assert len(values) == TOOLS_MAX + 1
    assert values[OTHER] == 800
    assert sum(values.values()) == TOOLS_MAX + 800


@pytest.mark.parametrize("trace_id", ["x" * 500, "", "0" * 32, TRACEPARENT.split("-")[1].upper()])
def test_what_is_no_trace_id_is_no_exemplar(trace_id: str) -> None:
    """What is in the ledger may have been written by anybody; a long one would have the observation refused."""
    registry, calls = CollectorRegistry(), LiveCalls(FakeClock())
    metrics = Metrics(registry, calls)
    for happening in life(trace_id):
        calls.begin(happening)
        metrics.hear(happening)
        assert calls.exemplar("i") is None
    assert registry.get_sample_value("mcp_queue_wait_seconds_count", {"lane": "tools"}) == 1


def life(trace_id: str) -> tuple[Happening, ...]:
    """Of a call that is accepted and released."""
    invocation = Invocation("i", Call("a.b", trace_id=trace_id), Principal("p"), Lane.TOOLS, State.WAITING, 0.9)
    released = AttemptReleased("i", 1, "a.b", None, "main", "n", Lane.TOOLS, "q", 1.0, 0.01, ("only: n",))
    return Accepted(invocation), released


def test_a_known_label_stays_its_own() -> None:
    """Also after the bound is reached."""
    bounded = Bounded(2)
    assert [bounded.of(word) for word in ("a", "b", "c", "a", "b")] == ["a", "b", OTHER, "a", "b"]
