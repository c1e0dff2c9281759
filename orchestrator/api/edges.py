"""The outermost ring of every door, the MCP paths too: from where, from which page, and with which headers.

Owns peers behind trusted proxies, the addresses that may come at all, the Origin check for browsers, and the security
headers of every answer. Refuses to know paths and principals. Slow requests are `orchestrator/patience.py`'s.

Source: MCP 2025-11-25, Streamable HTTP, security warning (Origin, DNS rebinding); OWASP Secure Headers Project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import problem
from orchestrator.api.trace import trace_of
from tasks.errors import Permanent, SettingsError

Networks = tuple[IPv4Network | IPv6Network, ...]
LOOPBACK_ORIGINS = ("http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*")
ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer that does not say otherwise itself: an answer is data, and no page may show, run or keep it."""
UNDER_TLS = (b"strict-transport-security", b"max-age=31536000")
"""A year. Source: RFC 6797, section 6.1."""
HOPS_MAX = 20


class WrongOrigin(Permanent):
    """A page of another site asks, through somebody's browser."""

    code = "wrong_origin"
    http_status = 403


class NotFromHere(Permanent):
    """This address is not among those that may come."""

    code = "not_from_here"
    http_status = 403


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """What the ring lets through.

    Attributes:
        origins: `Origin` values; `:*` at the end is any port.
        proxies: peers whose X-Forwarded-For is believed. None by default: anybody may write that header.
        networks: peers that may come at all; empty: all.
    """

    origins: tuple[str, ...] = LOOPBACK_ORIGINS
    proxies: Networks = ()
    networks: Networks = ()
    known: dict[bytes, bool] = field(default_factory=dict, compare=False, repr=False)

    def knows(self, origin: bytes) -> bool:
        """Whether a page of this origin may ask."""
        found = self.known.get(origin)
        if found is None:
            said = origin.decode("latin-1")
            anywhere = f"{said.rpartition(':')[0]}:*"
            found = said in self.origins or anywhere in self.origins or f"{said}:*" in self.origins
            if len(self.known) < HOPS_MAX:
                self.known[origin] = found
        return found


class Edges:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, rules: EdgeRules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            self._admit(scope)
            answer.is_tls = scope.get("scheme") == "https"
            await self._app(scope, receive, answer.send)
        except (WrongOrigin, NotFromHere) as error:
            if answer.has_begun:
                raise
            await problem(error, trace_of(dict(scope["headers"]))).send(receive, answer.send)

    def _admit(self, scope: Scope) -> None:
        """Raises WrongOrigin, NotFromHere."""
        rules, forwarded, proto = self._rules, [], b""
        for name, value in scope["headers"]:
            if name == b"origin" and not rules.knows(value):
                raise WrongOrigin(
                    f"a page of {value[:80].decode('latin-1')!r} may not ask here; if it may, name it in "
                    "MCPFLEET_ALLOWED_ORIGINS"
                )
            if name == b"x-forwarded-for":
                forwarded.append(value)
            elif name == b"x-forwarded-proto":
                proto = value
        if rules.proxies or rules.networks:
            self._place(scope, forwarded, proto)

    def _place(self, scope: Scope, forwarded: Sequence[bytes], proto: bytes) -> None:
        client = scope.get("client")
        peer = client[0] if client else None
        if peer is not None and is_in(peer, self._rules.proxies):
            if forwarded:
                hops = b",".join(forwarded).decode("latin-1").split(",")[-HOPS_MAX:]
                peer = _before(hops, self._rules.proxies, peer)
            scope["client"] = None if peer is None else (peer, 0)
            if proto in {b"http", b"https"}:
                scope["scheme"] = proto.decode()
        if self._rules.networks and (peer is None or not is_in(peer, self._rules.networks)):
            raise NotFromHere(f"{peer or 'an unknown address'} is not among the addresses that may come here")


class _Answer:
    """Adds the headers that an answer does not have."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = self.is_tls = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = list(message.get("headers", ()))
            there = {name for name, _ in headers}
            headers += [one for one in ALWAYS if one[0] not in there]
            if self.is_tls and UNDER_TLS[0] not in there:
                headers.append(UNDER_TLS)
            message = {**message, "headers": headers}
        await self._send(message)


def networks_of(text: str, setting: str) -> Networks:
    """Addresses and networks, separated by commas.

    Raises:
        SettingsError: one that is none.
    """
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}; write addresses or networks, e.g. 10.0.0.0/8, 192.0.2.7") from error


@lru_cache(maxsize=4096)
def is_in(peer: str, networks: Networks) -> bool:
    """Whether an address is in one of them; an IPv4 address in IPv6 form is that IPv4 address."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _before(hops: Sequence[str], proxies: Networks, peer: str) -> str | None:
    """Who came to the first proxy of ours: from the right, the first that is none of them; else the peer itself.

    What is left of it was written by whoever came, and is not looked at. None is unknown: a hop that cannot be read,
    and loopback, which is the proxy's own machine or made up, and never more trusted for being said.
    """
    for hop in reversed(hops):
        address = _address(hop)
        if address is None or not is_in(address, proxies):
            return None if address is None or ip_address(address).is_loopback else address
    return peer


def _address(hop: str) -> str | None:
    """Of `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1` and `[2001:db8::1]:443`."""
    said = hop.strip()
    if said.startswith("["):
        said, _, _port = said[1:].partition("]")
    elif said.count(":") == 1:
        said = said.partition(":")[0]
    try:
        address = ip_address(said)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
