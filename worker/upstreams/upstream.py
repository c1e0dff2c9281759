"""What every kind of server is to the node: a small Protocol, and the values that go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
)

from tasks.approval import Permission, Question
from tasks.invocation import FLEET_TENANT
from tasks.spend import Spend, Spent
from tasks.tool import ToolSpec
from tasks.tracing import Trace
from worker.grants import Caller

INVOCATION_META_KEY = "mcpfleet/invocation"
"""In `_meta` of every call: the Invocation's id, the same for every try. A server that writes can use
it to recognise a repeated call."""

Progress = Callable[[float, float | None, str | None], None]
"""progress, total, message; called in the event loop, must not block."""
OnSpend = Callable[[Spent], None]
"""All that the call used of models until now; called in the event loop, must not block."""


OnRequest = Callable[[Spend, float], None]
"""What one request to a model used, and how many seconds it took."""


def nobody_counts(_used: Spend, _took_s: float) -> None:
    """Where no spans are made."""


def nobody_pays(_spent: Spent) -> None:
    """Where nobody keeps books."""


_OWN_KEYS = frozenset(
    {"progressToken", PROTOCOL_VERSION_META_KEY, CLIENT_INFO_META_KEY, CLIENT_CAPABILITIES_META_KEY, LOG_LEVEL_META_KEY}
)
"""Keys of `_meta` that belong to the caller's own connection, not to the call."""


class Keeping(Protocol):
    """Where an attempt saves its session, and what an earlier attempt saved of it (worker/keeping.py)."""

    @property
    def node(self) -> str:
        """This one's name."""
        ...

    @property
    def fence(self) -> int:
        """Of the attempt."""
        ...

    @property
    def limit_bytes(self) -> int:
        """More is not taken; 0: nothing is."""
        ...

    @property
    def left(self) -> str | None:
        """Digest of what an earlier attempt saved: this one goes on from there."""
        ...

    @property
    def spent_usd(self) -> float | None:
        """What earlier attempts have cost, as far as anybody knows: never less than what they saved says."""
        ...

    @property
    def until(self) -> float | None:
        """The call's deadline, wall clock; None where it has none."""
        ...

    async def fetch(self) -> bytes:
        """That. Raises UpstreamError."""
        ...

    async def save(self, number: int, data: bytes) -> None:
        """Store it, then say so. `number` grows, also over attempts. Raises FleetError."""
        ...


class Approver(Protocol):
    """Puts a question of one call to a person. There is one where the call came through the fleet."""

    def question(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float, frees_slot: bool) -> Question:
        """Raises ValueError or TypeError: the arguments are no JSON."""
        ...

    async def answer(self, question: Question) -> Permission:
        """What a person says; the call's own time limit does not run meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What travels with a call beside tool and arguments."""

    invocation: str
    trace: Trace | None
    """Where in its trace the call stands: what the server does is below that."""
    meta: dict[str, Any] | None
    """`{"_meta": …, "inputResponses": …, "requestState": …}` as an MCP client sent them."""
    on_progress: Progress
    project: str | None = None
    on_spend: OnSpend = nobody_pays
    keeping: Keeping | None = None
    """None where nothing can be saved."""
    approver: Approver | None = None
    caller: Caller | None = None
    """Who called; None where the call did not come through the fleet."""
    on_request: OnRequest = nobody_counts

    @property
    def tenant(self) -> str:
        """Whose call it is: a project is its tenant's alone."""
        return FLEET_TENANT if self.caller is None else self.caller.tenant

    def call_meta(self) -> dict[str, Any]:
        """`_meta` for the server: the caller's own, then the Invocation's id and W3C trace context."""
        sent = (self.meta or {}).get("_meta") or {}
        meta = {key: value for key, value in sent.items() if key not in _OWN_KEYS}
        meta[INVOCATION_META_KEY] = self.invocation
        if self.trace is not None:
            meta["traceparent"] = self.trace.traceparent()
        return meta

    def capabilities(self) -> dict[str, Any] | None:
        """What the caller at the fleet's door said that it can do (elicitation, sampling, …).

        A 2026-07-28 server asks for input only if the client declared it, so it must see the
        capabilities of whoever will answer, not ours.
        """
        declared = ((self.meta or {}).get("_meta") or {}).get(CLIENT_CAPABILITIES_META_KEY)
        return declared if isinstance(declared, dict) else None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How one server of this node is doing, for people."""

    name: str
    kind: str
    """stdio, http, module or builtin."""
    state: str
    """starting, ready, waiting (to be started again) or closed."""
    tools: int = 0
    restarts: int = 0
    error: str | None = None
    """Why it is not ready, or why it last ended."""
    protocol: str | None = None
    last_success_s: float | None = None
    """Monotonic time of its last answer."""
    unhealthy: str | None = None
    """Why no new calls should come for now, though it may be there: see docs/adr/0008-health.md."""
    note: str | None = None
    """What people should know of it, though calls may come."""
    mirrors: tuple[str, ...] = ()
    """Projects whose files it keeps a copy of, by name."""
    limits: str | None = None
    """Of an agent runtime: by what means each run's memory, CPU and processes are limited, and what is not."""
    leaks: Mapping[str, int] = field(default_factory=dict)
    """Of an agent runtime: what its runs had left behind, by kind, since the node started."""


class Alarm(Protocol):
    """What a transport tells the session above it."""

    def down(self) -> None:
        """The server is gone."""
        ...

    def changed(self) -> None:
        """Its tools may be others, or it may be gone: ask it."""
        ...


class Upstream(Protocol):
    """One MCP server as this node uses it."""

    @property
    def name(self) -> str:
        """As in the servers file."""
        ...

    async def start(self) -> None:
        """Begin; returns when the first try to start it has ended, well or badly."""
        ...

    async def close(self) -> None:
        """End it and everything it started."""
        ...

    def tools(self) -> tuple[ToolSpec, ...]:
        """What it offers, also while it is being started again; nothing before it was ready once."""
        ...

    def quiet_s(self) -> float | None:
        """Seconds since it was last heard of; None where there is nothing to be heard."""
        ...

    def status(self) -> ServerStatus:
        """For people."""
        ...

    async def call(self, tool: str, arguments: dict[str, Any], ask: Ask) -> str:
        """One call; the result as JSON text. Raises UpstreamError."""
        ...
