"""A tool as the fleet knows it: the MCP definition its server gave, and what the operator added.

Refuses to call anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tasks.invocation import Lane

TIMEOUT_TOOLS_S = 300.0
"""Seconds a `tools` call may run unless declared otherwise: past it a person has given up."""
TIMEOUT_AGENTS_S = 4 * 3600.0
"""Seconds an `agents` call may run unless declared otherwise."""
STOP_MAX_S = 20.0
"""What a tool may ask for to stop in: a node that drains has to wait for it."""


class RetryForm(BaseModel):
    """`tasks.retry.RetryPolicy` where bytes enter; absent fields keep the policy's defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    attempts: int = Field(default=3, ge=1, le=100)
    first_wait_s: float = Field(default=1.0, ge=0, le=3600)
    factor: float = Field(default=2.0, ge=1, le=10)
    cap_s: float = Field(default=30.0, ge=0, le=86_400)
    retry_tool_errors: bool = False


class DeclaredRetry(RetryForm):
    """Of a tool, as its node tells it: a newer node may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class OnNodeLoss(StrEnum):
    """What becomes of a call that may have been running on a node that was lost."""

    RERUN = "rerun"
    """It runs elsewhere, as soon as the node's lease is over."""
    FAIL = "fail"
    """It fails once the grace is over, and is kept as a dead letter."""
    RESUME = "resume"
    """Once the grace is over it goes on elsewhere from what its node last saved of it (a session capsule); where
    nothing was saved, from the start if it never said that it had started, else as `ask`."""
    ASK = "ask"
    """It is lost once the grace is over: a person looks, then replays or discards the dead letter."""


class Declared(NamedTuple):
    """What decides whether a call of a tool may be repeated. Nothing declared: it may not."""

    is_safe: bool = False
    on_node_loss: OnNodeLoss = OnNodeLoss.ASK

    def stricter(self, other: Declared) -> Declared:
        """One doubt is enough not to repeat; where they differ on a loss, a person is asked."""
        agreed = self.on_node_loss if self.on_node_loss is other.on_node_loss else OnNodeLoss.ASK
        return Declared(self.is_safe and other.is_safe, agreed)


UNDECLARED = Declared()


class ToolPolicy(BaseModel):
    """What an operator declares about a tool, beside its server in the `mcpServers` file.

    A newer node may declare more than this orchestrator knows; the file itself is read strictly.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    lane: Lane | None = None
    is_safe: bool | None = None
    """May be repeated. Decided by `idempotentHint`/`readOnlyHint` when absent; no hint: unsafe."""
    on_node_loss: OnNodeLoss | None = None
    """`rerun` for what may be repeated and `ask` for everything else, when absent."""
    timeout_s: float | None = Field(default=None, gt=0)
    silence_limit_s: float | None = Field(default=None, ge=0)
    """Its server is given up when it said nothing at all for so long while the tool ran; 0: never. When
    absent a default holds, for servers that were seen to answer while the tool ran (worker/upstreams/pulse.py)."""
    stop_s: float | None = Field(default=None, ge=0, le=STOP_MAX_S)
    """Seconds it has once it was told to stop; then its server's process is ended. 0: it is trusted to stop."""
    retry: DeclaredRetry | None = None
    grant: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]{0,62}$")
    """A call of it needs a grant of this resource type; its node checks that, offline (docs/guard.md)."""
    grant_scope: tuple[str, ...] = ()
    """Of that type: all of it must be granted."""


class ToolSpec(BaseModel):
    """One tool of one server, as a node offers it."""

    model_config = ConfigDict(frozen=True)
    server: str
    definition: dict[str, Any]
    """The MCP `Tool` object as its server listed it: name, title, description, inputSchema, …"""
    policy: ToolPolicy = ToolPolicy()

    @property
    def name(self) -> str:
        """`server.tool`: the name every door uses."""
        return f"{self.server}.{self.definition['name']}"

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments."""
        schema: dict[str, Any] = self.definition.get("inputSchema") or {"type": "object"}
        return schema

    @property
    def is_safe(self) -> bool:
        """May be repeated after it may have started. Unannotated means no.

        Source: MCP 2026-07-28, ToolAnnotations (`readOnlyHint`, `idempotentHint`).
        """
        if self.policy.is_safe is not None:
            return self.policy.is_safe
        hints = self.definition.get("annotations") or {}
        return bool(hints.get("readOnlyHint") or hints.get("idempotentHint"))

    @property
    def on_node_loss(self) -> OnNodeLoss:
        """What becomes of a call of it that a lost node may have been running."""
        return self.policy.on_node_loss or (OnNodeLoss.RERUN if self.is_safe else OnNodeLoss.ASK)

    @property
    def declared(self) -> Declared:
        """Both of them."""
        return Declared(self.is_safe, self.on_node_loss)

    @property
    def lane(self) -> Lane:
        """`tools` unless declared."""
        return self.policy.lane or Lane.TOOLS

    @property
    def timeout_s(self) -> float:
        """Seconds one attempt may run."""
        default = TIMEOUT_TOOLS_S if self.lane is Lane.TOOLS else TIMEOUT_AGENTS_S
        return self.policy.timeout_s or default
