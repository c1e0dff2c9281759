"""Our doors as protected resources: their metadata, and the challenge that leads to it. Source: RFC 9728.

There is no `scopes_supported`: MCP's client would ask for all of them, and a client that may have some would be
refused. What a client may have is in its registration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Resource:
    """One door.

    Attributes:
        url: its identifier, and the `aud` of tokens for it; without a slash at the end.
        issuers: whose tokens it takes.
    """

    url: str
    issuers: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where its metadata is: the well-known name goes between host and path (section 3.1)."""
        return WELL_KNOWN + urlsplit(self.url).path

    def metadata(self) -> dict[str, Any]:
        """The document. Source: section 2."""
        return {
            "resource": self.url,
            "resource_name": "mcpfleet",
            "authorization_servers": list(self.issuers),
            "bearer_methods_supported": ["header"],
        }

    def challenge(self, *, error: str = "", description: str = "") -> str:
        """The value of WWW-Authenticate. Source: section 5.1; RFC 6750, section 3."""
        parts = ['Bearer realm="mcpfleet"']
        if self.issuers:
            parts.append(f'resource_metadata="{_origin(self.url)}{self.path}"')
        if error:
            parts.append(f'error="{error}"')
        if description:
            parts.append(f'error_description="{_quotable(description)}"')
        return ", ".join(parts)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _quotable(text: str) -> str:
    """Only what RFC 6750, section 3 lets stand between the quotes."""
    return "".join(one for one in text if " " <= one <= "~" and one not in '"\\')[:300]
