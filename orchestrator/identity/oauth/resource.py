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

    @property
    def metadata_url(self) -> str:
        """What a challenge names (section 5.1); empty where there is no issuer to be led to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{self.path}" if self.issuers else ""
