"""The outermost ring: pages of other sites, forged addresses, slow and huge requests, and the headers of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from orchestrator.api.edges import ALWAYS, EdgeRules, Edges, networks_of
from orchestrator.api.settings import ApiSettings
from orchestrator.front.app import McpFront
from orchestrator.identity.doors import Authenticators
from orchestrator.limits import api_settings, front_settings, zones_of
from orchestrator.patience import HEADERS_BYTES_MAX, PatientProtocol
from orchestrator.policy.zones import LOCAL, OUTSIDE
from orchestrator.presented import Presented
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.doors import CLIENT_TOKEN, FakeTokens
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.front import Toolbox
from orchestrator.testing.http import door, fake_app
from orchestrator.testing.inprocess_fleet import InProcessFleet
from tasks.errors import SettingsError

WITHIN_S = 60.0
EVIL = "https://evil.example"
PATHS = ("/v1/invocations", "/health", "/metrics", "/nowhere", "/openapi.json")


def _settings(**given: Any) -> OrchestratorSettings:
    return OrchestratorSettings.model_validate({"token": "t", "join_token": "j"} | given)


def _api(**given: Any) -> ApiSettings:
    return replace(api_settings(_settings(**given)), allowed_hosts=None)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1.evil.example", "https://fleet.example:444", ""])
async def test_a_page_of_another_site_is_refused_at_every_path(path: str, origin: str) -> None:
    """Also with a good token, and also where nothing is: its browser was tricked into asking."""
    async with door(settings=_api(allowed_hosts="fleet.example")) as client:
        answer = await client.get(path, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_origin")


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:1", "https://fleet.example"])
async def test_pages_of_our_own_names_may_ask(origin: str) -> None:
    """Loopback, and the names the fleet is served under."""
    async with door(
        settings=_api(allowed_hosts="fleet.example", allowed_origins="https://ops.example:8443/")
    ) as client:
        assert (await client.get("/health", headers={"Origin": origin})).status_code == 200
        assert (await client.get("/health", headers={"Origin": "https://ops.example:8443"})).status_code == 200
        assert (await client.get("/health", headers={"Origin": EVIL})).status_code == 403


@pytest.mark.parametrize("origin", ["https://127.0.0.1:8700", "https://fleet.example:8700"])
async def test_pages_of_a_fleet_that_speaks_tls_itself_may_ask_it(origin: str) -> None:
    """The console's own forms, of this machine and under the fleet's name with its port; without TLS nobody's."""
    for tls, status in ((True, 200), (False, 403)):
        async with door(settings=_api(allowed_hosts="fleet.example", tls=tls)) as client:
            assert (await client.get("/health", headers={"Origin": origin})).status_code == status


async def test_the_mcp_path_refuses_a_page_of_another_site() -> None:
    """With a good token, before anything is read: also for ordinary calls that take the short way."""
    tools = Toolbox()
    chosen = replace(front_settings(_settings()), body_limit_bytes=10_000)
    front = McpFront(InProcessFleet(tools.specs(), tools.run), Authenticators([FakeTokens()]), chosen)
    app = Starlette(
        routes=front.routes(), middleware=[Middleware(Edges, rules=EdgeRules())], lifespan=lambda _: front.running()
    )
    headers = {"Authorization": f"Bearer {CLIENT_TOKEN}", "Accept": "application/json, text/event-stream"}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with front.running():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", headers=headers) as client:
            assert (await client.post("/mcp", json=ask)).status_code != 403
            assert (await client.post("/mcp", json=ask, headers={"Origin": EVIL})).status_code == 403
            assert (await client.post("/mcp", content=b"x" * 10_001)).status_code == 413


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_its_headers(path: str) -> None:
    """Good ones, refusals and what is not there; HSTS only where it came by TLS."""
    proxy = _api(trusted_proxies="127.0.0.1")
    for settings, proto, has_hsts in ((_api(), "https", False), (proxy, "https", True), (proxy, "http", False)):
        async with door(settings=settings) as client:
            answer = await client.get(path, headers={"X-Forwarded-Proto": proto})
        for name, value in ALWAYS:
            assert answer.headers.get_list(name.decode()) == [value.decode()]
        assert ("strict-transport-security" in answer.headers) is has_hsts


@pytest.mark.parametrize(
    ("proxies", "forwarded", "seen"),
    [
        ("", "198.51.100.9", "127.0.0.1"),
        ("192.0.2.0/24", "198.51.100.9", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("127.0.0.1", "10.9.9.9, 198.51.100.9", "198.51.100.9"),
        ("127.0.0.1,198.51.100.0/24", "203.0.113.5, 198.51.100.9", "203.0.113.5"),
        ("127.0.0.1", "198.51.100.9, rubbish", None),
        ("127.0.0.1", "unknown", None),
        ("127.0.0.1", "198.51.100.9,", None),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1/32", "127.0.0.2", None),
        ("127.0.0.1", "::1", None),
        ("127.0.0.1", "[::1]:4711", None),
        ("127.0.0.1/32", "::ffff:127.0.0.2", None),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "198.51.100.9:4711", "198.51.100.9"),
        ("127.0.0.1,198.51.100.0/24", "203.0.113.5:1, 198.51.100.9:2", "203.0.113.5"),
    ],
)
async def test_forwarded_addresses_are_believed_of_trusted_proxies_alone(
    proxies: str, forwarded: str, seen: str | None
) -> None:
    """From the right, the first that is no proxy of ours; what is left of that a client wrote itself.

    None where it cannot be read, and for loopback: whoever says so is no more trusted than one who does not.
    """
    found: list[str | None] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        found.append(scope["client"] and scope["client"][0])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    edges = Edges(app, EdgeRules(proxies=networks_of(proxies, "X")))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edges), base_url="http://x") as client:
        await client.get("/", headers={"X-Forwarded-For": forwarded} if forwarded else {})
    assert found == [seen]


@pytest.mark.parametrize(
    ("given", "trust"),
    [
        ({}, LOCAL),
        ({"trusted_proxies": "10.0.0.0/8"}, LOCAL),
        ({"trusted_proxies": "127.0.0.1"}, OUTSIDE),
        ({"trusted_proxies": "10.0.0.0/8, ::1"}, OUTSIDE),
        ({"trusted_proxies": "0.0.0.0/0"}, OUTSIDE),
        ({"trust_loopback": False}, OUTSIDE),
    ],
)
def test_where_a_proxy_is_on_loopback_nobody_is_local(given: dict[str, Any], trust: int) -> None:
    """Everybody comes from there, also when the proxy says nothing of whom."""
    assert zones_of(_settings(**given)).trust(Presented("t", "127.0.0.1")) == trust


async def test_only_listed_addresses_may_come_and_nobody_forges_one() -> None:
    """The connection's address counts; what a header says counts only behind a trusted proxy."""
    async with door(settings=_api(allowed_networks="10.0.0.0/8")) as client:
        answer = await client.get("/health", headers={"X-Forwarded-For": "10.0.0.1"})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_from_here")
    async with door(settings=_api(allowed_networks="10.0.0.0/8", trusted_proxies="127.0.0.1")) as client:
        assert (await client.get("/health", headers={"X-Forwarded-For": "10.0.0.1"})).status_code == 200
        assert (await client.get("/health", headers={"X-Forwarded-For": "11.0.0.1"})).status_code == 403
        assert (await client.get("/health")).status_code == 403


def test_a_network_that_is_none_stops_the_start() -> None:
    """By the setting's name: a typo must not open the door."""
    with pytest.raises(SettingsError, match="MCPFLEET_ALLOWED_NETWORKS"):
        api_settings(_settings(allowed_networks="10.0.0.1/8"))


@pytest.mark.parametrize(
    ("given", "is_open"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::1"}, True),
        ({"trusted_proxies": "127.0.0.1"}, False),
        ({"host": "0.0.0.0", "open_metrics": True}, True),
        ({"open_metrics": False}, False),
    ],
)
async def test_metrics_are_open_on_this_machine_only(given: dict[str, Any], is_open: bool) -> None:
    """Elsewhere they need a token, unless the operator opens them."""
    async with door(token=None, settings=_api(**given)) as client:
        assert (await client.get("/metrics")).status_code == (200 if is_open else 401)


class _Quick(PatientProtocol):
    """Waits half a second."""

    headers_within_s = body_within_s = 0.5


@asynccontextmanager
async def _served(rules: EdgeRules) -> AsyncIterator[int]:
    """The real HTTP server on a free port; the port."""
    app = fake_app(FakeFleet(), replace(ApiSettings(), edges=rules))
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=_Quick, log_config=None, timeout_graceful_shutdown=1))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(WITHIN_S):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def _says(port: int, *parts: bytes, ends: bool = False) -> bytes:
    """All that is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
    if ends:
        writer.write_eof()
    async with asyncio.timeout(WITHIN_S):
        answer = await reader.read()
    writer.close()
    return answer


HEAD = b"POST /v1/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + CLIENT_TOKEN.encode() + b"\r\n"


async def test_slow_headers_and_slow_bodies_are_cut() -> None:
    """Whoever sends nothing, half a header, half a body, or endless headers is gone; an ordinary client is served."""
    async with _served(EdgeRules()) as port:
        assert b"408" in await _says(port, b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        body = HEAD + b"Content-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"
        assert b"408" in await _says(port, body)
        endless = b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * (HEADERS_BYTES_MAX // 8 + 100)
        assert b"431" in await _says(port, endless)
        fine = await _says(port, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in fine
        second = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX-Slow: "
        assert (await _says(port, second)).count(b"HTTP/1.1 ") == 2


async def test_a_connection_that_says_nothing_is_cut() -> None:
    """It is answered with a 408 and closed, not kept for ever."""
    async with _served(EdgeRules()) as port:
        assert b"408" in await _says(port)
