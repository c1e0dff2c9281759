"""Limits of the HTTP door, as values. Refuses to read the environment: `orchestrator/settings.py` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

from orchestrator.api.edges import EdgeRules

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the door allows.

    Attributes:
        body_limit_bytes: of one JSON body; a batch of 1,000 ordinary calls is about 0.3 MB.
        blob_limit_bytes: of one blob.
        answer_limit_bytes: results that one answer to a wait for many carries before it says `more`.
        wait_max_s: one `?wait=` or SSE silence must end before proxies cut idle connections (60 s).
        keepalive_s: an SSE comment is sent after this silence.
        allowed_hosts: `Host` header values without port; None allows all. Set on loopback binds,
            where a web page could otherwise reach us under a name of its own (DNS rebinding).
        is_metrics_open: `/metrics` needs no token.
        resource_metadata: URL that a 401 names, where a client finds its issuer (RFC 9728); empty without one.
        edges: from where, from which page and how fast requests may come.
        version: shown by `/health` and in the OpenAPI document.
        trace_url: where a person looks at a trace, with `{trace_id}` in it; empty: nowhere.
    """

    body_limit_bytes: int = 16 * 2**20
    blob_limit_bytes: int = 256 * 2**20
    answer_limit_bytes: int = 16 * 2**20
    wait_max_s: float = 50.0
    keepalive_s: float = 15.0
    allowed_hosts: frozenset[str] | None = None
    is_metrics_open: bool = False
    resource_metadata: str = ""
    edges: EdgeRules = field(default_factory=EdgeRules)
    version: str = "0"
    trace_url: str = ""

    def link_to(self, trace_id: str | None) -> str | None:
        """Where a person looks at this trace."""
        return self.trace_url.replace("{trace_id}", trace_id) if trace_id and self.trace_url else None


def hosts_for(bind: str) -> frozenset[str] | None:
    """The `Host` values to allow on this bind address: only loopback names on loopback, else all."""
    if bind in {"localhost", ""}:
        return LOOPBACK_NAMES
    try:
        is_loopback = ip_address(bind.strip("[]")).is_loopback
    except ValueError:
        return None
    return LOOPBACK_NAMES | {bind} if is_loopback else None
