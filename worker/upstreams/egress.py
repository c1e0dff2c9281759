"""Where the node connects to for a server with a `url`: to addresses that were judged, and to no others.

A name is resolved here, every address that it has is judged, and the connection goes to one of those very addresses:
a name that means something else a moment later (DNS rebinding) gains nothing. Which addresses are public is said by
`worker/workspaces/destinations.py`. Refuses link-local addresses and metadata services, whoever asks.

The rule: an operator who writes an *address* of this machine or a private network, or `localhost`, means it. A *name*
may lead to public addresses only, unless its entry says `"private": true`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from worker.workspaces.destinations import Address, Destination

LOCALHOST = "localhost"
DEFAULT_PORTS = {"http": 80, "https": 443}


class NotReachable(httpcore2.ConnectError):
    """No address behind this name may be connected to."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The one destination of a session."""

    destination: Destination
    is_localhost: bool = False

    def opens(self, address: Address) -> bool:
        """Whether it may be connected to."""
        if self.is_localhost:
            return address.is_loopback
        return self.destination.opens(address)


def allowed_by(url: str, *, is_private: bool) -> Allowed:
    """What the operator allows who wrote this URL.

    Raises:
        ValueError: it names no host, or an address that nobody can open; said in words.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    if not host:
        raise ValueError("it names no host")
    if host == LOCALHOST or host.endswith(f".{LOCALHOST}"):
        return Allowed(Destination(host, port), is_localhost=True)
    literal = _address(host)
    made = Destination(host, port, is_private or literal is not None)
    if literal is not None and not made.opens(literal):
        raise ValueError(
            f"{literal} is link-local, a cloud's metadata service or no address of a host: nobody opens it"
        )
    return Allowed(made)


class JudgedBackend(httpcore2.AsyncNetworkBackend):
    """Connects for httpx: every address judged, at the moment of connecting."""

    def __init__(self, allowed: Allowed, inner: httpcore2.AsyncNetworkBackend) -> None:
        self._allowed, self._inner = allowed, inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """To the first judged address that answers.

        Raises:
            NotReachable: this host is not the one of the session, or none of its addresses may be connected to.
        """
        if (host, port) != (self._allowed.destination.host, self._allowed.destination.port):
            raise NotReachable(f"{host}:{port} is not what the servers file names")
        addresses = await self._resolved(host, port, timeout)
        opened = [one for one in addresses if self._allowed.opens(one)]
        if len(opened) < len(addresses) or not opened:
            shut = ", ".join(sorted({str(one) for one in addresses} - {str(one) for one in opened})) or "no address"
            do = 'say "private": true in its entry, if this server is meant'
            raise NotReachable(f"{host} leads to {shut}, which is not public: {do}")
        failed: Exception = NotReachable(f"{host} has no address")
        for address in opened:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def connect_unix_socket(self, path: str, *_more: object, **_other: object) -> httpcore2.AsyncNetworkStream:
        """Never: a server of a URL is on the network."""
        raise NotReachable(f"{path} is not what the servers file names")

    async def sleep(self, seconds: float) -> None:
        """As httpcore does."""
        await self._inner.sleep(seconds)

    @staticmethod
    async def _resolved(host: str, port: int, timeout_s: float | None) -> list[Address]:
        literal = _address(host)
        if literal is not None:
            return [literal]
        try:
            async with asyncio.timeout(timeout_s):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} has no address ({error})") from error
        unique = dict.fromkeys(ip_address(str(one[4][0]).partition("%")[0]) for one in found)
        return list(unique)


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
