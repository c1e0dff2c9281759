"""Which agent runtimes a node runs: the key `sidecars` under `mcpfleet` in the servers file.

    {"mcpfleet": {"sidecars": {"claude_code": {
        "kind": "claude_code", "version": "2.1.330", "key_file": "/etc/mcpfleet/anthropic.key",
        "prices": {"claude-sonnet-5": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}}},
        "projects": {"shop": {"git": "ssh://git@example.org/shop.git"}}}}

Owns form and limits; refuses unknown keys, and to read any secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import FleetError, SettingsError
from worker.workspaces.names import Project

Positive = Annotated[float, Field(gt=0)]


class PriceEntry(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float = Field(default=0.0, ge=0)
    cache_write: float = Field(default=0.0, ge=0)


class ApprovalsEntry(BaseModel):
    """How a run waits for a person, in the permission mode `ask`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mode: Literal["hold", "free"] = "hold"
    """`hold`: the run keeps its slot; `free`: others get it, and the run takes one again before it goes on."""
    wait_s: Positive = 3600.0
    """Then it is denied."""


class ClaudeCodeEntry(BaseModel):
    """Claude Code beside this node."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["claude_code"]
    binary: Path
    """The native program: `…/@anthropic-ai/claude-code-linux-x64/claude`."""
    version: str
    """The one that this fleet runs; a node with another one does not offer it."""
    key_file: Path
    """Holds the API key, and nothing else. Read for each request; no agent ever sees it."""
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
    approvals: ApprovalsEntry = ApprovalsEntry()


class OpenAIChatEntry(BaseModel):
    """A model behind an OpenAI-compatible endpoint: GLM's API, vLLM, SGLang, llama.cpp."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["openai_chat"]
    url: str = Field(pattern=r"^https?://")
    """With the version: `https://api.z.ai/api/paas/v4`."""
    model: str
    key_file: Path | None = None
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
    approvals: ApprovalsEntry = ApprovalsEntry()


SidecarEntry = ClaudeCodeEntry | OpenAIChatEntry
KINDS: dict[str, type[SidecarEntry]] = {"claude_code": ClaudeCodeEntry, "openai_chat": OpenAIChatEntry}


def parse_sidecars(listed: Mapping[str, Any], where: str) -> dict[str, SidecarEntry]:
    """By name, which is the first part of its tools' names.

    Raises:
        SettingsError: anything in it is wrong; the sidecar and the key are named.
    """
    return {name: _entry(value, f"{where}: {name}") for name, value in listed.items()}


def _entry(value: object, where: str) -> SidecarEntry:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in KINDS:
        raise SettingsError(f"{where}: kind is {kind!r}; known are {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{where}: {field}: {first['msg']}") from error


def parse_projects(listed: Mapping[str, Any], where: str) -> dict[str, Project]:
    """Whose files agents work in, by name.

    Raises:
        SettingsError: an address or a name in no form that is allowed; nothing of a password is shown.
    """
    projects = {}
    for name, value in listed.items():
        if not isinstance(value, dict) or set(value) != {"git"} or not isinstance(value["git"], str):
            raise SettingsError(f'{where}: {name}: must be {{"git": "address of the repository"}} and nothing else')
        try:
            projects[name] = Project.of(name, value["git"])
        except FleetError as error:
            raise SettingsError(f"{where}: {name}: {error.message}") from error
    return projects
