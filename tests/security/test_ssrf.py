"""A server's URL does not lead the node into its own machine, its network or a cloud's metadata service."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.errors import SettingsError
from worker.upstreams.egress import JudgedBackend, NotReachable, allowed_by
from worker.upstreams.filling import NoSecrets
from worker.upstreams.http import HttpLink
from worker.upstreams.servers_file import HttpEntry, load_servers

PUBLIC = "93.184.216.34"
NAME = "http://tools.example/mcp"


class Wire(httpcore2.AsyncNetworkBackend):
    """Remembers where it was led; nothing answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def connect_tcp(self, host: str, port: int, *more: Any, **other: Any) -> httpcore2.AsyncNetworkStream:
        self.asked.append(f"{host}:{port}")
        raise httpcore2.ConnectError("nobody is there")

    async def connect_unix_socket(self, path: str, *more: Any, **other: Any) -> httpcore2.AsyncNetworkStream:
        raise AssertionError(path)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def _means(monkeypatch: pytest.MonkeyPatch, *answers: Iterable[str]) -> None:
    """What the resolver says, once after another; the last stays."""
    left = [list(answer) for answer in answers]

    async def getaddrinfo(_self: object, _host: str, port: int, **_more: Any) -> list[Any]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", getaddrinfo)


async def _connect(url: str, *, is_private: bool = False) -> list[str]:
    wire, parts = Wire(), httpx2.URL(url)
    backend = JudgedBackend(allowed_by(url, is_private=is_private), wire)
    with pytest.raises(httpcore2.ConnectError) as failed:
        await backend.connect_tcp(parts.host, parts.port or 80)
    if isinstance(failed.value, NotReachable):
        assert wire.asked == []
        raise failed.value
    return wire.asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "168.63.129.16",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "fd00:ec2::254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
    ],
)
async def test_a_name_leads_to_no_address_that_is_not_public(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Loopback, private, shared, link-local, metadata, multicast, reserved; also carried in IPv6."""
    _means(monkeypatch, [address])
    with pytest.raises(NotReachable, match="not public"):
        await _connect(NAME)


async def test_a_name_leads_to_public_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the very address that was judged, not by its name again."""
    _means(monkeypatch, [PUBLIC])
    assert await _connect(NAME) == [f"{PUBLIC}:80"]


async def test_one_bad_address_among_good_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers both hopes that the second is tried."""
    _means(monkeypatch, [PUBLIC, "127.0.0.1"])
    with pytest.raises(NotReachable, match=r"127\.0\.0\.1"):
        await _connect(NAME)


async def test_a_name_that_means_something_else_a_moment_later_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is resolved once for each connection, and judged each time."""
    _means(monkeypatch, [PUBLIC], ["127.0.0.1"])
    assert await _connect(NAME) == [f"{PUBLIC}:80"]
    with pytest.raises(NotReachable):
        await _connect(NAME)


async def test_an_operators_word_opens_private_addresses_and_nothing_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not link-local, not metadata, not multicast."""
    _means(monkeypatch, ["10.1.2.3"])
    assert await _connect(NAME, is_private=True) == ["10.1.2.3:80"]
    for address in ("169.254.169.254", "224.0.0.1", "fe80::1", "100.100.100.200"):
        _means(monkeypatch, [address])
        with pytest.raises(NotReachable):
            await _connect(NAME, is_private=True)


async def test_an_address_that_the_operator_wrote_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """And `localhost`, as long as it is this machine."""
    assert await _connect("http://10.1.2.3:9000/mcp") == ["10.1.2.3:9000"]
    _means(monkeypatch, ["127.0.0.1"])
    assert await _connect("http://localhost:9000/mcp") == ["127.0.0.1:9000"]
    _means(monkeypatch, ["10.1.2.3"])
    with pytest.raises(NotReachable):
        await _connect("http://localhost:9000/mcp")


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1"])
async def test_other_ways_to_write_loopback_are_names(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """The system's resolver makes 127.0.0.1 of them: judged like any other name."""
    _means(monkeypatch, ["127.0.0.1"])
    with pytest.raises(NotReachable):
        await _connect(f"http://{host}/mcp")


async def test_another_host_than_the_servers_own_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a request is sent within this session."""
    _means(monkeypatch, [PUBLIC])
    backend = JudgedBackend(allowed_by(NAME, is_private=True), Wire())
    for host, port in (("other.example", 80), ("tools.example", 8080)):
        with pytest.raises(NotReachable, match="not what the servers file names"):
            await backend.connect_tcp(host, port)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "224.0.0.1"])
def test_a_servers_file_that_names_a_metadata_service_is_refused(tmp_path: Path, host: str) -> None:
    """At the start, by its entry; also where it says that it means it."""
    for more in ({}, {"private": True}):
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"web": {"url": f"http://{host}/mcp", **more}}}))
        with pytest.raises(SettingsError, match="leads nowhere that a node goes"):
            load_servers(tmp_path / "mcp.json", {})


def test_a_servers_file_says_that_a_name_is_private(tmp_path: Path) -> None:
    """True or false, nothing else."""
    for value in (True, False):
        entry = {"url": NAME, "private": value}
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"web": entry}}))
        (found,) = load_servers(tmp_path / "mcp.json", {}).servers
        assert isinstance(found, HttpEntry)
        assert found.is_private is value
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"web": {"url": NAME, "private": "yes"}}}))
    with pytest.raises(SettingsError, match="true or false"):
        load_servers(tmp_path / "mcp.json", {})


class _Alarm:
    """Nobody listens."""

    def down(self) -> None:
        """Not heard."""

    def changed(self) -> None:
        """Not heard."""


async def test_a_session_is_led_through_the_judged_way_and_follows_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real transport over a real socket: the inner server is asked once by its own URL, never by a redirect."""
    asked: list[str] = []

    async def secret(_request: object) -> PlainTextResponse:
        asked.append("secret")
        return PlainTextResponse("secret")

    async def away(_request: object) -> RedirectResponse:
        asked.append("away")
        return RedirectResponse("/secret", 307)

    app = Starlette(routes=[Route("/secret", secret, methods=["GET", "POST"]), Route("/mcp", away, methods=["POST"])])
    async with serving(app) as url:
        link = HttpLink(
            HttpEntry("web", f"{url}/mcp"), alarm=_Alarm(), limit_bytes=10_000, clock=SystemClock(), secrets=NoSecrets()
        )  # type: ignore[arg-type]
        async with link:
            client = httpx2.AsyncClient(transport=link._wire, follow_redirects=False)
            answer = await client.post(f"{url}/mcp", json={})
            assert (answer.status_code, asked) == (307, ["away"])
            named = url.replace("127.0.0.1", "localhost")
            refused = await client.post(f"{named}/secret", json={})
            assert (refused.status_code, asked) == (502, ["away"])
            assert "not what the servers file names" in refused.text
