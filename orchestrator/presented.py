"""What came with a request and says who sent it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Presented:
    """The credentials of one request, and where it came from. Read at the door, once."""

    token: str = field(repr=False)
    """Of `Authorization: Bearer`; empty without one."""
    peer: str | None = None
    """IP address of whoever sent it, as the connection says; None over a Unix socket."""
    certificate: str | None = None
    """SHA-256 thumbprint of its client certificate, base64url (RFC 8705, `x5t#S256`); None without one."""
    node: str | None = None
    """The node that certificate names; None without one, and for one that is no node's."""


CERTIFICATE_KEY = "mcpfleet.certificate"
"""In an ASGI scope: the thumbprint, put there by whatever ended TLS in this process."""
CERTIFIED_NODE_KEY = "mcpfleet.certified_node"
"""The same: the node that the certificate names."""


def presented(scope: Mapping[str, Any]) -> Presented:
    """What a request came with. Forwarded headers are not looked at: anybody may write them."""
    client = scope.get("client")
    return Presented(
        _bearer(scope["headers"]),
        client[0] if client else None,
        scope.get(CERTIFICATE_KEY),
        scope.get(CERTIFIED_NODE_KEY),
    )


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Source: RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1)."""
    said = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, token = said.decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
