"""Which agent runtimes a node runs: the key `sidecars` under `mcpfleet` in the servers file.

    {"mcpfleet": {"sidecars": {"claude_code": {
        "kind": "claude_code", "version": "2.1.330", "key_file": "/etc/mcpfleet/anthropic.key",
        "prices": {"claude-sonnet-5": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}}},
        "projects": {"shop": {"git": "ssh://git@example.org/shop.git"}}}}

A `key_file` may be a `secret_ref:OWNER:NAME` instead. Owns form and limits; refuses unknown keys, and to read
any secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import FleetError, SettingsError
from tasks.invocation import FLEET_TENANT, TENANT_PATTERN
from tasks.secretref import PREFIX, SecretRef, parse_ref
from worker.grants import AUTHGUARDIAN
from worker.workspaces.destinations import Destination, destination_of
from worker.workspaces.names import Project

Positive = Annotated[float, Field(gt=0)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MEMORY_MIN_BYTES = 512 * 2**20
"""Claude Code alone takes about 250 MB."""


class RunShare(BaseModel):
    """What one run may use of the node, all its processes together."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    memory_bytes: int | None = Field(default=4 * 2**30, ge=MEMORY_MIN_BYTES)
    """Files in its /tmp count too."""
    cpus: Positive | None = None
    processes: int | None = Field(default=512, ge=64)
    """Threads count."""


def key_ref(key_file: Path | None) -> SecretRef | None:
    """The secret that stands in the place of a file. Raises NotARef, a ValueError."""
    return parse_ref(str(key_file)) if key_file is not None and str(key_file).startswith(PREFIX) else None


def _in_home(path: str) -> str:
    if path.startswith("/") or not path.strip("./") or ".." in path.split("/"):
        raise ValueError("must be a path relative to HOME, without '..'")
    return path


def _in_sandbox(path: str) -> str:
    if not path.startswith(_FREE) or ".." in path.split("/"):
        raise ValueError(f"must be a path below one of {', '.join(_FREE)} inside the sandbox")
    return path


def _key_file(path: Path) -> Path:
    key_ref(path)
    return path


_FREE = ("/opt/", "/srv/")
KeyFile = Annotated[Path, AfterValidator(_key_file)]
InHome = Annotated[str, AfterValidator(_in_home)]
InSandbox = Annotated[str, AfterValidator(_in_sandbox)]


class PriceEntry(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: Price
    output: Price
    cache_read: Price = 0.0
    cache_write: Price = 0.0


class ApprovalsEntry(BaseModel):
    """How a run waits for a person, in the permission mode `ask`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mode: Literal["hold", "free"] = "hold"
    """`hold`: the run keeps its slot; `free`: others get it, and the run takes one again before it goes on."""
    wait_s: Positive = 3600.0
    """Then it is denied."""


class FallsBackEntry(BaseModel):
    """Where a run goes that this sidecar's credential cannot pay for. See docs/adr/0016-falling-back.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    to: str
    """Another sidecar of this node."""
    after_wait_s: float = Field(default=300.0, ge=0, allow_inf_nan=False)
    """A shorter wait for the provider is waited for. A refused key has no end, and is never waited for."""


class ClaudeCodeEntry(RunShare):
    """Claude Code beside this node."""

    kind: Literal["claude_code"]
    binary: Path
    """The native program: `…/@anthropic-ai/claude-code-linux-x64/claude`."""
    version: str
    """The one that this fleet runs; a node with another one does not offer it."""
    key_file: KeyFile
    """Holds the API key, and nothing else. Read for each request; no agent ever sees it. Or `secret_ref:OWNER:NAME`."""
    url: str = Field(default="https://api.anthropic.com", pattern=r"^https?://")
    """A compatible endpoint in its place: GLM's, or a gateway."""
    bearer: bool = False
    """Send the key as `Authorization: Bearer`, as gateways want it."""
    model: str | None = None
    """Where a call names none."""
    environ: dict[str, str] = {}
    """Of the runtime, e.g. CLAUDE_CODE_MAX_CONTEXT_TOKENS for models of others."""
    prices: dict[str, PriceEntry] = {}
    """By model or the beginning of its name. Without a price a run's money cannot be limited."""
    wall_s: Positive = 3600.0
    """The longest that any run takes."""
    silence_s: Positive = 600.0
    cost_usd: Positive | None = None
    """The most that any run may cost."""
    capsule_every_s: float = Field(default=30.0, ge=0)
    """Between two saves of a run's session; 0: none, and a run that loses its machine is lost."""
    approvals: ApprovalsEntry = ApprovalsEntry()
    falls_back: FallsBackEntry | None = None


class OpenAIChatEntry(RunShare):
    """A model behind an OpenAI-compatible endpoint: GLM's API, vLLM, SGLang, llama.cpp."""

    kind: Literal["openai_chat"]
    url: str = Field(pattern=r"^https?://")
    """With the version: `https://api.z.ai/api/paas/v4`."""
    model: str
    key_file: KeyFile | None = None
    """Holds the API key, and nothing else; None where the endpoint wants none."""
    context_tokens: int | None = Field(default=None, gt=0)
    """What the model reads at once, its own answer included."""
    output_tokens: int | None = Field(default=None, gt=0)
    extra_body: dict[str, Any] = {}
    """Beside what we ask: `reasoning_effort`, `thinking`, `chat_template_kwargs`."""
    can_call_tools: bool = True
    """Off for models that only talk: then there is no agent, only chat and generate_code."""
    returns_reasoning: bool = False
    asks_usage: bool = True
    stall_s: Positive = 60.0
    prices: dict[str, PriceEntry] = {}
    wall_s: Positive = 3600.0
    silence_s: Positive = 600.0
    cost_usd: Positive | None = None
    capsule_every_s: float = Field(default=30.0, ge=0)
    """As of `claude_code`."""
    approvals: ApprovalsEntry = ApprovalsEntry()


class AcpEntry(RunShare):
    """Any agent that speaks the Agent Client Protocol. See docs/agents.md for those that were tried."""

    kind: Literal["acp"]
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """As it is called inside the sandbox: `["/opt/agent/opencode", "acp"]`."""
    read_only: dict[Path, InSandbox] = {}
    """What it needs beside /usr, to where that is inside: `{"/srv/opencode/bin": "/opt/agent"}`."""
    url: str = Field(pattern=r"^https?://")
    """Of the model, as far as the agent's own requests go on from it: with the version for `openai`, without for
    `anthropic`. The agent is told another one, `{base_url}`, which leads here."""
    api: Literal["openai", "anthropic"]
    """Which API it speaks there: chat completions, or messages."""
    key_file: KeyFile | None = None
    """Holds the API key, and nothing else; None where the endpoint wants none. No agent ever sees it."""
    bearer: bool = False
    """Of `anthropic`: send the key as `Authorization: Bearer`."""
    environ: dict[str, str] = {}
    """With `{base_url}`, `{token}` and `{model}` in it, as in `files` and `command`."""
    files: dict[InHome, str | dict[str, Any]] = {}
    """Written into its HOME before each run: text, or an object as JSON."""
    sessions: tuple[InHome, ...] = ()
    """Files and folders of its HOME that hold a session (`{session}` is its id); kept between runs."""
    version: str | None = None
    """The one that this fleet runs, as the agent says it; a run of another one fails."""
    auth_method: str | None = None
    """Named to the agent before a session, where it wants that."""
    model: str | None = None
    """Where a call names none."""
    prices: dict[str, PriceEntry] = {}
    wall_s: Positive = 3600.0
    silence_s: Positive = 600.0
    cost_usd: Positive | None = None
    approvals: ApprovalsEntry = ApprovalsEntry()


SidecarEntry = ClaudeCodeEntry | OpenAIChatEntry | AcpEntry
KINDS: dict[str, type[SidecarEntry]] = {
    "claude_code": ClaudeCodeEntry,
    "openai_chat": OpenAIChatEntry,
    "acp": AcpEntry,
}


def parse_sidecars(listed: Mapping[str, Any], where: str) -> dict[str, SidecarEntry]:
    """By name, which is the first part of its tools' names.

    Raises:
        SettingsError: anything in it is wrong; the sidecar and the key are named.
    """
    entries = {name: _entry(value, f"{where}: {name}") for name, value in listed.items()}
    for name, entry in entries.items():
        why_not = _why_no_fall(name, entry, entries)
        if why_not is not None:
            raise SettingsError(f"{where}: {name}: falls_back: {why_not}")
    return entries


def policy_of_fall(entry: SidecarEntry) -> FallsBackEntry | None:
    """Whether and when its runs go to another one."""
    return entry.falls_back if isinstance(entry, ClaudeCodeEntry) else None


def _why_no_fall(name: str, entry: SidecarEntry, entries: Mapping[str, SidecarEntry]) -> str | None:
    """No chain, so no loop; and nobody is asked what it has no words, no model or no price for."""
    policy = policy_of_fall(entry)
    if policy is None:
        return None
    to, said = entries.get(policy.to), repr(policy.to)
    if policy.to == name or to is None:
        others = ", ".join(sorted(set(entries) - {name})) or "none"
        return f"to: {said} is no other sidecar of this node; known are {others}"
    if not isinstance(to, ClaudeCodeEntry):
        return f"to: {said} is of the kind {to.kind}, which does not take all that a run of claude_code may be told"
    if to.falls_back is not None:
        return f"to: {said} falls back itself, to {to.falls_back.to!r}; name one that does not"
    if to.model is None:
        return f"to: {said} names no model: it would be asked for one of Claude's"
    if not any(to.model.startswith(model) for model in to.prices):
        return f"to: {said} has no price for its model {to.model!r}: runs with a limit of money would be refused there"
    return None


def _entry(value: object, where: str) -> SidecarEntry:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in KINDS:
        raise SettingsError(f"{where}: kind is {kind!r}; known are {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(value)
    except ValidationError as error:
        raise SettingsError(f"{where}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


class DestinationEntry(BaseModel):
    """Where runs of a project may go: `"packages.example.net"`, `"*.example.org:8443"`, or with more said."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: str
    """A name, or one address, with a port if it is not 443; `*.` before a name: all names below it."""
    private: bool = False
    """It may be on the machine itself or in a private network. Metadata services of clouds it never is."""
    address: str | None = None
    """Where it is, in place of what its name resolves to."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, said: object) -> object:
        return {"host": said} if isinstance(said, str) else said

    @model_validator(mode="after")
    def _is_a_destination(self) -> DestinationEntry:
        self.made()
        return self

    def made(self) -> Destination:
        """Raises ValueError: in no form that is allowed."""
        return destination_of(self.host, is_private=self.private, address=self.address)


class ProjectEntry(BaseModel):
    """One project of this node."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    git: str
    """Where its files come from."""
    tenant: str = Field(default=FLEET_TENANT, pattern=rf"^{TENANT_PATTERN.pattern}$")
    """Whose it is; calls of other tenants do not find it."""
    servers: tuple[str, ...] = ()
    """Of `mcpServers` here: its agents may use them, where the call allows their tools."""
    destinations: tuple[DestinationEntry, ...] = ()
    """What its runs reach of the network, beside their model; nothing where this is empty."""


def parse_projects(listed: Mapping[str, Any], where: str, servers: Collection[str]) -> dict[str, Project]:
    """Whose files agents work in, by name. `servers`: this node's, without agents.

    Raises:
        SettingsError: an address or a name in no form that is allowed; nothing of a password is shown.
    """
    projects = {}
    for name, value in listed.items():
        try:
            entry = ProjectEntry.model_validate(value)
        except ValidationError as error:
            raise SettingsError(f"{where}: {name}: {_first(error)}") from error
        unknown = next((each for each in entry.servers if each not in servers and each != AUTHGUARDIAN), None)
        if unknown is not None:
            why = f"{unknown!r} is no MCP server of this node; known are {', '.join(sorted(servers)) or 'none'}"
            raise SettingsError(f"{where}: {name}: servers: {why}")
        try:
            reached = tuple(each.made() for each in entry.destinations)
            projects[name] = Project.of(name, entry.git, entry.servers, reached, entry.tenant)
        except FleetError as error:
            raise SettingsError(f"{where}: {name}: {error.message}") from error
    return projects
