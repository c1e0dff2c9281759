"""Every setting of a node, read once at start from `MCPFLEET_NODE_*` and the command line."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tasks.invocation import Lane
from tasks.node import NAME_PATTERN, Visibility
from tasks.redis_tls import RedisTls

PREFIX = "MCPFLEET_NODE_"


def _host_name() -> str:
    """The machine's name, in the form a node's name must have."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")
    return name[:41] or "node"


class NodeSettings(BaseModel):
    """One node. Times in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(default_factory=_host_name, pattern=NAME_PATTERN)
    """Stands in queue names and in the journal's file name; the host's name when absent."""
    pool: str = Field("default", pattern=NAME_PATTERN)
    """Nodes of one shape."""
    orchestrator_url: str = Field("http://127.0.0.1:8700", pattern=r"^https?://[^\s,]+(\s*,\s*https?://[^\s,]+)*$")
    """Where to join; several replicas separated by commas."""
    enrol_token: SecretStr = SecretStr("")
    """One-time, for this name and pool (`mcpfleet node enrol`): traded at the first start for a credential that the
    node makes itself and keeps in its state directory. Of no use afterwards."""
    join_token: SecretStr = SecretStr("")
    """The fleet's, good for every name and pool; not needed by a node that has enrolled."""
    ca: Path | None = None
    """PEM: who signed the certificate of an `https://` orchestrator (`mcpfleet ca`); the system's when absent."""
    redis_ca: Path | None = None
    """PEM: who signed the certificate of the fleet's Redis, where that is reached over TLS."""
    redis_cert: Path | None = None
    """PEM: this node's certificate for it, where it asks for one."""
    redis_key: Path | None = None
    """PEM: its key."""
    servers: Path | None = None
    """The `mcpServers` file; without one the node offers the built-in `probe` only."""
    slots_tools: int = Field(8, ge=0, le=10_000)
    """Short calls at once: they mostly wait for their servers."""
    slots_agents: int = Field(2, ge=0, le=1_000)
    """Long runs at once: each holds a model session and a workspace."""
    capabilities: frozenset[str] = frozenset()
    """Beside the names of its servers, e.g. `gpu`."""
    labels: dict[str, str] = Field(default_factory=dict)
    """For people and for filters; they decide nothing."""
    location: str = Field("", max_length=63)
    """Region or room, for people and for placement."""
    visibility: Visibility = Visibility.PUBLIC
    """Who may be placed here."""
    weight: float = Field(1.0, gt=0)
    """Share under weighted round robin."""
    state_dir: Path = Field(default_factory=lambda: Path.home() / ".local" / "state" / "mcpfleet" / "nodes")
    """Journal and kept results; a disk that outlives the process."""
    http_host: str = "127.0.0.1"
    """This node's MCP server, /health and /metrics listen here; loopback unless asked."""
    http_port: int = Field(0, ge=0, le=65_535)
    """0 takes a free one; the orchestrator learns it at join."""
    http_token: SecretStr = SecretStr("")
    """Bearer token of this node's own MCP server; empty closes it. /health and /metrics need none."""
    url: str = ""
    """How others reach this node's HTTP server, where that is not its address."""
    drain_s: float = Field(30.0, ge=0, le=86_400)
    """After SIGTERM: what runs may finish for so long, as init systems usually allow."""
    machine_ttl_s: float = Field(0.0, ge=0)
    """The machine's dead-man powers it off when its fleet was not heard of for so long; 0: it is never asked to."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug` has a line for each call."""
    log_file: Path | None = None
    """Lines go here instead of to stderr; a file for this process alone."""
    log_file_bytes: int = Field(50 * 2**20, ge=0)
    """A new file after so many; 0: never, for where logrotate does it."""
    log_files_kept: int = Field(5, ge=0)
    """Old files that stay."""
    log_otlp: bool = False
    """Lines go to `otlp_endpoint` too."""
    otlp_endpoint: str = Field("", pattern=r"^$|^https?://\S+$")
    """An OpenTelemetry collector's base URL for OTLP over HTTP, e.g. `http://127.0.0.1:4318`; empty: no spans are made.
    See docs/traces.md."""
    otlp_headers_file: Path | None = None
    """Holds headers for it, one `Name: value` a line: a collector's key, for example."""
    otlp_ca_file: Path | None = None
    """Certificates (PEM) that the collector's is checked against; none: the public ones."""
    otlp_gzip: bool = False
    """Compress what is sent to it: for a collector far away, as it costs CPU here."""
    trace_ratio: float = Field(1.0, ge=0, le=1)
    """Share of traces that are kept. A caller that says in `traceparent` whether its own is sampled decides for it."""

    @property
    def redis_tls(self) -> RedisTls:
        """This machine's files for Redis."""
        return RedisTls(self.redis_ca, self.redis_cert, self.redis_key)

    @property
    def slots(self) -> dict[Lane, int]:
        """Per lane."""
        return {Lane.TOOLS: self.slots_tools, Lane.AGENTS: self.slots_agents}
