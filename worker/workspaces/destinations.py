"""Where a project's runs may go on the network: names with a port, and which addresses may be behind them. Pure.

Owns the form in which an operator lists them, what that covers, and what no listing opens. Refuses ranges of
addresses: whose an address is today is not known by its number.
Source: RFC 6890 (special addresses), RFC 9110 9.3.6 (a tunnel is asked for by host and port).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
PORT = 443
PORT_MAX = 65_535
NAME_MAX_CHARS = 253
ANY_BELOW = "*."
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label of this kind makes an address of the whole in every resolver. Source: WHATWG URL, 3.5."""
_OWN = ("localhost", ".localhost")
_GLOBAL_V6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16")))
"""Python judges these one way or the other, by its patch level."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The upper half of such an interface identifier; the lower is an address of version 4. Source: RFC 5214, 6.1."""
_PRIVATE = tuple(
    map(
        ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1", "fc00::/7")
    )
)
"""What an operator's word opens. Link-local and multicast it never does."""
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:42::42",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
        ),
    )
)
"""Of clouds: they give out credentials to whoever is on the machine. Those of a public or private network, too."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a run asks for."""

    host: str
    """A name in lower case without a last dot, or an address."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Destination:
    """What an operator lists."""

    host: str
    """As of `Target`, or `*.` and a name: all names below it, at any depth, not itself."""
    port: int
    is_private: bool = False
    """Its addresses may be of the machine's own or a private network."""
    address: Address | None = None
    """Where it is, in place of what its name resolves to."""

    def covers(self, target: Target) -> bool:
        """Whether this is it."""
        if target.port != self.port:
            return False
        if self.host.startswith(ANY_BELOW):
            return target.host.endswith(self.host[1:]) and len(target.host) >= len(self.host)
        return target.host == self.host

    def opens(self, address: Address) -> bool:
        """Whether a run may be led to this address."""
        meant = _carried(address)
        judged = (meant, *_tunnelled_to(meant))
        if address in _METADATA or any(each in _METADATA for each in judged):
            return False
        return all(
            _is_public(each) or (self.is_private and any(each in network for network in _PRIVATE)) for each in judged
        )

    def __str__(self) -> str:
        return str(Target(self.host, self.port))


def target_of(text: str, port: int | None = None) -> Target:
    """From `host:port`; without a port where one is given for that.

    Raises:
        ValueError: neither a name nor an address, or no port; said in words.
    """
    host, said_port = _parted(text)
    if said_port:
        if not re.fullmatch(r"[0-9]{1,5}", said_port) or not 0 < int(said_port) <= PORT_MAX:
            raise ValueError(f"{said_port[:20]!r} is no port: use 1 to {PORT_MAX}")
        port = int(said_port)
    if port is None:
        raise ValueError("it names no port: use host:port")
    return Target(_host(host), port)


def destination_of(text: str, *, is_private: bool = False, address: str | None = None) -> Destination:
    """From what an operator wrote: `host`, `host:port`, `*.host`, `*.host:port`.

    Raises:
        ValueError: in no form that is allowed; said in words.
    """
    is_any = text.strip().startswith(ANY_BELOW)
    target = target_of(text.strip().removeprefix(ANY_BELOW), PORT)
    if target.host == _OWN[0] or target.host.endswith(_OWN[1]) or _is_loopback(target.host):
        why = "inside a sandbox this is the run's own loopback, and no proxy is asked for it"
        raise ValueError(f'{why}: list another name, with "address" and "private": true')
    if is_any and ("." not in target.host or _is_address(target.host)):
        raise ValueError(f"{text[:100]!r} is too wide, or no name: '*.' goes before two labels at least")
    try:
        at = None if address is None else ip_address(address)
    except ValueError:
        raise ValueError(f"address {address!r} is no IP address") from None
    made = Destination(f"{ANY_BELOW}{target.host}" if is_any else target.host, target.port, is_private, at)
    if at is None and _is_address(target.host):
        at = ip_address(target.host)
    if at is not None and not made.opens(at):
        why = "no listing opens it" if is_private else 'say "private": true if it is meant, and no metadata service'
        raise ValueError(f"{at} is no public address: {why}")
    return made


def _parted(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"{text[:100]!r} is neither a host nor host:port")
        return host, rest[1:]
    host, _, port = text.partition(":")
    return host, port


def _host(text: str) -> str:
    if _is_address(text):
        return str(ip_address(text))
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if (
        len(name) > NAME_MAX_CHARS
        or not all(_LABEL.fullmatch(label) for label in labels)
        or _NUMBER.fullmatch(labels[-1])
    ):
        why = "use a DNS name (punycode for others than ASCII), or one IP address, version 6 in brackets"
        raise ValueError(f"{text[:100]!r} is no host: {why}; neither a URL nor a range of addresses")
    return name


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_loopback(host: str) -> bool:
    return _is_address(host) and _carried(ip_address(host)).is_loopback


def _carried(address: Address) -> Address:
    """What an address of version 6 means where it carries one of version 4: mapped, 6to4, NAT64."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _tunnelled_to(address: Address) -> tuple[Address, ...]:
    """Where ISATAP takes it. An address of version 6 all the same: both are to be judged."""
    if isinstance(address, IPv4Address) or (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP:
        return ()
    return (IPv4Address(int(address) & 0xFFFFFFFF),)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
