"""Every setting of the orchestrator: `MCPFLEET_<NAME>` in the environment. Read once, at start.

Durations are seconds, sizes bytes. `MCPFLEET_NODE_*` belongs to workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tasks.node import LEASE_TTL_S, RENEW_EVERY_S


class OrchestratorSettings(BaseModel):
    """What an operator may decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database_url: str = "sqlite:///mcpfleet.db"
    """The ledger. SQLAlchemy URL: sqlite or postgresql+psycopg."""
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Broker and streams, as the orchestrator reaches it; redis:// or sentinel://, see docs/redis.md."""
    redis_url_for_nodes: SecretStr | None = None
    """The same Redis as the nodes reach it; `redis_url` when absent."""
    redis_acl: Literal["off", "file", "manage"] = "off"
    """One Redis user per node: `file` by `mcpfleet redis acl`, `manage` made here at each join and ended with it;
    docs/redis.md. `off` suits one machine: all have the address's own user."""
    redis_ca: Path | None = None
    """PEM: who signed the certificate of a `rediss://` server; the system's authorities when absent."""
    redis_cert: Path | None = None
    """PEM: our certificate, where that server asks for one."""
    redis_key: Path | None = None
    """PEM: its key."""
    blob_dir: Path = Path("blobs")
    """Where payloads over the inline limit are kept."""
    key_file: Path | None = None
    """The keys that secrets, and stored payloads where that is asked for, are sealed under; see docs/secrets.md.
    None: nothing is sealed, and no secret can be kept here. `mcpfleet up` makes one for its own fleet."""
    seal_payloads: bool = False
    """Seal arguments, results, blobs and capsules too, with the keys of `key_file`. The cost: docs/secrets.md."""
    secrets_dir: Path | None = None
    """Secrets as files, `<owner>.<name>` each: Docker's /run/secrets, systemd's credentials directory."""
    vault_url: str = Field(default="", pattern=r"^$|^https?://\S+$")
    """HashiCorp Vault or OpenBao, whose KV engine (version 2) keeps values of secrets; empty: none."""
    vault_mount: str = Field(default="secret", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    """Where that engine is mounted."""
    vault_prefix: str = Field(default="mcpfleet", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    """Below it everything is `<tenant>/<owner>/<name>`; its policy should allow reading there and nowhere else."""
    vault_namespace: str = ""
    """Of Vault Enterprise and OpenBao, where there are several."""
    vault_token_file: Path | None = None
    """Holds a token, for example one that Vault's agent renews; read again when it is refused."""
    vault_role_id: str = ""
    """Of an AppRole, where there is no token file."""
    vault_secret_id_file: Path | None = None
    """Holds the AppRole's secret id."""
    vault_ca_file: Path | None = None
    """Who signed the vault's certificate; the system's authorities when absent."""
    secrets_look_s: float = Field(default=60.0, ge=1)
    """Sources that tell nobody of changes are looked at this often, for secrets that nodes were given."""
    host: str = "127.0.0.1"
    """Loopback: a fleet is not exposed by accident."""
    port: int = Field(default=8700, ge=0, le=65535)
    """0 takes a free one, which the ready file names."""
    advertise: str = Field(default="", pattern=r"^$|^\S+:\d+$")
    """HOST:PORT at which other replicas reach this one; host and port when absent."""
    listen_fd: int | None = None
    """A listening socket inherited from the parent, instead of host and port."""
    tls: bool = False
    """Doors speak TLS 1.3, and nodes need certificates of the fleet's own authority; needs `pool_secret`. Off: plain
    HTTP, for one machine or behind a proxy that ends TLS."""
    tls_cert: Path | None = None
    """PEM: another authority's certificate for the doors, with its chain; from our own when absent."""
    tls_key: Path | None = None
    """PEM: its key."""
    allowed_hosts: str = ""
    """Further Host header values, separated by commas, when served under a name."""
    allowed_origins: str = ""
    """Origins of web pages that may ask, separated by commas; `https://` with each of `allowed_hosts` may anyway."""
    allowed_networks: str = ""
    """Addresses and networks from which anybody may come, separated by commas; empty: all. Nodes' too."""
    trusted_proxies: str = ""
    """Addresses of reverse proxies whose X-Forwarded-For and -Proto are believed, separated by commas; empty: none."""
    token: SecretStr
    """Bearer token of every door."""
    join_token: SecretStr
    """Bearer token with which nodes join."""
    pool_secret: SecretStr | None = None
    """Keys of sealed messages and of late-bound deliveries are derived from it. When absent, those of sealed ones
    are from `token`, the others from `join_token`."""
    pool_secret_earlier: SecretStr | None = None
    """With `tls`: the pool secret before, for at least a day after a change of it. Its authority is believed beside the
    new one, so that no node enrols anew; nothing else is derived from it. See docs/rotation.md."""
    seal_deliveries: bool = True
    """Deliveries, nodes' events and control entries are sealed: Redis holds no arguments and no results, and
    nodes that cannot open them are refused. Costs about 10 µs per call; off: only authenticated."""
    policy_dir: Path | None = None
    """Folder of Cedar policies and limits, see docs/policy.md. Without one, scopes and tenants alone decide."""
    trusted_networks: str = ""
    """CIDR, separated by commas: for policies, whoever connects from there has trust 70, others 50."""
    trust_loopback: bool = True
    """Whoever connects over loopback has trust 90. Off where a reverse proxy runs on this machine, and by itself where
    `trusted_proxies` names one on loopback."""
    pools_file: Path | None = None
    """TOML: pools, how the fleet sizes itself, where projects may run. See docs/adr/0012-autoscaler.md."""
    guard_file: Path | None = None
    """TOML: what agents may ask AuthGuardian for, on which terms; four examples when absent. See docs/guard.md."""
    cloud_dir: Path = Path("cloud")
    """What cloud providers keep on this host, one folder each: local machines, keys, logs of boots."""
    url_for_nodes: str = Field(default="", pattern=r"^$|^https?://\S+$")
    """Where machines that are ordered reach this orchestrator; `http://` with host and port when absent."""
    lease_ttl_s: float = Field(default=LEASE_TTL_S, gt=0.5)
    """A node silent for this long is lost. Below 3 renewals one lost packet would end a lease."""
    renew_every_s: float = Field(default=RENEW_EVERY_S, gt=0.1)
    """How often nodes renew."""
    grace_tools_s: float = Field(default=10.0, ge=0)
    """An unreachable unsafe `tools` call is lost after this; its caller is waiting."""
    grace_agents_s: float = Field(default=180.0, ge=0)
    """An unreachable unsafe agent run is lost after this; it survives a lost minute."""
    forget_node_after_s: float = Field(default=7 * 86_400.0, ge=60)
    """A lost node that stays away is forgotten, with its queues; it may join again as a new one."""
    leader_ttl_s: float = Field(default=6.0, gt=1)
    """Another replica takes over this long after the leader fell silent."""
    inline_limit_bytes: int = Field(default=64 * 1024, ge=1024)
    """Larger arguments and results go to the blob store, so that rows and messages stay small."""
    payload_limit_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Larger arguments are refused."""
    result_limit_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Larger results are refused by the node."""
    capsule_limit_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    """Larger session capsules of agents are not saved; 0: none is, and no run goes on after its machine died."""
    max_backlog: int = Field(default=1_000_000, ge=1)
    """Calls that may wait; each costs about 1 KB of memory."""
    spawn_depth: int = Field(default=4, ge=0)
    """How many parents a call may have, one above the other; 0: runs may not call the fleet."""
    spawn_descendants: int = Field(default=100, ge=0)
    """Calls that one call may lead to in all, by its run and theirs, until they are forgotten."""
    retention_days: float = Field(default=30.0, ge=0)
    """An ended call is kept so long, with its result, its attempts and its idempotency key; 0: for ever."""
    retention_dead_days: float = Field(default=90.0, ge=0)
    """The same for one whose dead letter nobody replayed or discarded; never shorter than `retention_days`."""
    retention_spend_days: float = Field(default=400.0, ge=0)
    """What was spent on models is kept so long, for reports, when its call is gone already; 0: for ever."""
    retry_attempts: int = Field(default=3, ge=1)
    """Tries of a call that declares nothing."""
    retry_first_wait_s: float = Field(default=1.0, ge=0)
    """Ceiling of its first wait."""
    retry_cap_s: float = Field(default=30.0, ge=0)
    """Ceiling of every wait."""
    task_after_s: float = Field(default=1.0, ge=0)
    """A tools/call that takes longer becomes an MCP task where the client declares them."""
    sse: bool = False
    """Also serve the old HTTP+SSE transport."""
    public_url: str = ""
    """The doors' URL as clients write it, e.g. https://fleet.example.com; tokens of OAuth are bound to it. Without it:
    http:// and the doors' address."""
    oauth_file: Path | None = None
    """TOML: the OAuth or OpenID issuers whose tokens are taken, docs/oauth.md."""
    oauth_server: bool = False
    """Serve the built-in authorization server, for a fleet without an issuer."""
    oauth_token_s: float = Field(default=300.0, ge=60, le=3600)
    """Its access tokens are good for so long: short, because whoever has one is its client."""
    oauth_rotate_days: float = Field(default=30.0, ge=1)
    """It signs with one key for so long."""
    oauth_publish_s: float = Field(default=86_400.0, ge=600)
    """A key is published so long before it signs: longer than anybody keeps a key set."""
    open_metrics: bool | None = None
    """`/metrics` without a token; when absent, only on a loopback host without trusted proxies: it names tools."""
    audit_key_file: Path | None = None
    """Ed25519 key, PEM, that signs checkpoints of the audit log; made if missing; `audit.key` beside `blob_dir`."""
    audit_checkpoints: str = ""
    """Where each checkpoint is also kept, as a line of JSON: a file, best on another machine's disk, or `-`."""
    audit_checkpoint_rows: int = Field(default=100, ge=1)
    """A checkpoint after so many rows: what an intruder could rewrite unseen is what came after the last one."""
    audit_checkpoint_s: float = Field(default=300.0, ge=1)
    """Or after so many seconds, where there is a new row."""
    audit_export: str = ""
    """Where the audit log is copied to as it grows, separated by commas: see docs/audit.md."""
    audit_calls: str = ""
    """Tools whose calls have a row each in the audit log, as globs separated by commas; a row is one more commit."""
    audit_retention_days: float = Field(default=0.0, ge=0)
    """Older rows of the audit log are sealed by a checkpoint and removed; 0: never, for it is small."""
    console: bool = True
    """Serve the web console under /console. On, because it shows nobody more than their credential shows elsewhere."""
    console_idle_s: float = Field(default=8 * 3600.0, ge=60)
    """A login there ends after so long without a page asked for: a working day."""
    flower_feed: bool = True
    """Tell Flower every task by Celery's event format, in batches."""
    flower_history_calls: int = Field(default=1000, ge=0, le=20_000)
    """A Flower that was started is told so many of the newest calls, so that it forgets nothing; 0: none."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING, ERROR."""
    log_file: Path | None = None
    """Lines go here instead of to stderr; a file for this process alone."""
    log_file_bytes: int = Field(default=50 * 2**20, ge=0)
    """A new file after so many; 0: never, for where logrotate does it."""
    log_files_kept: int = Field(default=5, ge=0)
    """Old files that stay."""
    log_otlp: bool = False
    """Lines go to `otlp_endpoint` too."""
    otlp_endpoint: str = Field(default="", pattern=r"^$|^https?://\S+$")
    """An OpenTelemetry collector's base URL for OTLP over HTTP, e.g. `http://127.0.0.1:4318`; empty: no spans are made.
    See docs/traces.md."""
    otlp_headers_file: Path | None = None
    """Holds headers for it, one `Name: value` a line: a collector's key, for example."""
    otlp_ca_file: Path | None = None
    """Certificates (PEM) that the collector's is checked against; none: the public ones."""
    otlp_gzip: bool = False
    """Compress what is sent to it: for a collector far away, as it costs CPU here."""
    trace_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of traces that are kept. A caller that says in `traceparent` whether its own is sampled decides for it."""
    trace_url: str = Field(default="", pattern=r"^$|^https?://\S*\{trace_id\}\S*$")
    """Where a person looks at a trace: a URL with `{trace_id}` in it, e.g. of Jaeger `http://HOST:16686/trace/{trace_id}`."""
    ready_file: Path | None = None
    """Written with the address once every door is open; for whoever started this process."""
