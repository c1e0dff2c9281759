"""Grants at the point of use: whether this caller may use this tool now, judged by this node alone.

Owns what the node was told (public keys, what was revoked). Refuses to ask anybody: every reply to a renewal brings
what changed, and a node without a good lease starts nothing, so no start is judged by news older than a lease. What
runs under a grant that was revoked is stopped when the node hears of it; a grant that expires stops nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog

from tasks.errors import OrchestratorDown
from tasks.grant import META_KEY, READ_ONLY, REVOKED, Grant, GrantInvalid, GrantKeys, GrantNews, check_use
from tasks.node import Ref, RunGrantReply, RunGrantRequest
from tasks.outcome import ErrorInfo, Failure
from tasks.tool import ToolPolicy
from worker.upstreams.errors import UpstreamError, permanent

AUTHGUARDIAN = "authguardian"
"""As a project lists it among the servers that it lends to its runs."""
TOLD_S = 2.5
"""Until a node that has just joined was told, by the next reply to a renewal."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a tool is called, as the orchestrator authenticated it."""

    id: str
    tenant: str


class Wall(Protocol):
    """The fleet's time."""

    def wall_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class GuardAsk:
    """What a run asks for."""

    run: Ref
    resource_type: str
    justification: str
    scope: tuple[str, ...] = ()
    request: str | None = None


AskGuard = Callable[[GuardAsk], Awaitable[RunGrantReply]]
"""AuthGuardian, through the orchestrator. Raises FleetError."""


async def no_guard(_: GuardAsk) -> RunGrantReply:
    """Before the node has joined."""
    raise OrchestratorDown("the fleet", "this node has not joined yet")


class GuardDoor(Protocol):
    """The orchestrator, for what runs ask."""

    async def ask_guard(self, request: RunGrantRequest) -> RunGrantReply: ...


def guard_through(door: GuardDoor, incarnation: str) -> AskGuard:
    """AuthGuardian, as this process reaches it."""

    async def ask(said: GuardAsk) -> RunGrantReply:
        return await door.ask_guard(RunGrantRequest(incarnation=incarnation, **asdict(said)))

    return ask


class Use:
    """One call under a grant, until it ends. Built as `asyncio.timeout` is: whoever else cancels the task is obeyed."""

    def __init__(self, grant: str, tool: str, among: set[Use]) -> None:
        """`among`: those that can be stopped."""
        self.grant, self._tool, self._among = grant, tool, among
        self._is_stopped = False

    def __enter__(self) -> None:
        """The call starts."""
        task = asyncio.current_task()
        assert task is not None
        self._task, self._before = task, task.cancelling()
        self._among.add(self)

    def __exit__(self, *_: object) -> None:
        """It ended. What it said once it was told to stop is not handed on.

        Raises:
            UpstreamError: `grant_revoked`, where nothing but that ended it.
        """
        self._among.discard(self)
        if self._is_stopped and self._task.uncancel() <= self._before:
            what = f"the grant {self.grant} was revoked while {self._tool} ran; it was told to stop, and may have done"
            raise permanent(REVOKED, f"{what} some of its work: look there, then ask for another grant") from None

    def stop(self) -> None:
        """Once: a second cancellation would cut the tool's clean-up short."""
        if not self._is_stopped:
            self._is_stopped = True
            log.warning("grant_revoked_in_use", grant=self.grant, tool=self._tool, effect="its tool is told to stop")
            self._task.cancel()


class Grants:
    """What this node knows about grants."""

    def __init__(self, clock: Wall) -> None:
        self.version = ""
        """Of the news; empty: nothing was told yet."""
        self._clock, self._keys = clock, GrantKeys()
        self._revoked: frozenset[str] = frozenset()
        self._uses: set[Use] = set()

    def learn(self, news: GrantNews | None) -> None:
        """A reply to a renewal has come; None: nothing changed. What runs under a grant that was revoked is stopped."""
        if news is None:
            return
        self._keys, self._revoked, self.version = GrantKeys(news.keys), frozenset(news.revoked), news.version
        for use in list(self._uses):
            if use.grant in self._revoked:
                use.stop()

    def use(self, grant: Grant | None, tool: str) -> AbstractContextManager[object]:
        """While a call runs under it, in the caller's task; None: under none, and nothing is kept."""
        return nullcontext() if grant is None else Use(grant.id, tool, self._uses)

    def check(
        self, tool: str, policy: ToolPolicy, caller: Caller | None, token: object, *, is_read_only: bool
    ) -> Grant:
        """The grant under which this call may start.

        Args:
            tool: the fleet's name of it.
            policy: with the resource type that it needs.
            caller: None where the call did not come through the fleet.
            token: from the call's `_meta`, as it came.
            is_read_only: its server says that it changes nothing.

        Raises:
            UpstreamError: `grant_required`, `grant_invalid`, or `grants_unknown` until the node was told.
        """
        kind = str(policy.grant)
        if caller is None or not caller.id:
            raise permanent("grant_required", f"{tool} needs a grant of {kind}, so it is called through the fleet only")
        if not isinstance(token, str):
            how = f"ask AuthGuardian (`mcpfleet guard request-permission`) and send the token in _meta as {META_KEY}"
            raise permanent("grant_required", f"{tool} needs a grant of {kind}: {how}")
        if not self.version:
            message = f"{tool} needs a grant, and its node was not told yet which are good; it was not started"
            raise UpstreamError(ErrorInfo("grants_unknown", message, Failure.WAIT_UNTIL, TOLD_S))
        try:
            return self._judged(policy, caller, token, is_read_only=is_read_only)
        except GrantInvalid as error:
            raise permanent("grant_invalid", f"{tool}: {error.message}") from None

    def _judged(self, policy: ToolPolicy, caller: Caller, token: str, *, is_read_only: bool) -> Grant:
        grant = self._keys.read(token, self._clock.wall_s())
        scope = frozenset(policy.grant_scope)
        check_use(grant, agent=caller.id, tenant=caller.tenant, resource_type=str(policy.grant), scope=scope)
        if grant.id in self._revoked:
            raise GrantInvalid("revoked", "it was revoked")
        if grant.restrictions.get(READ_ONLY) and not is_read_only:
            raise GrantInvalid("read_only", "it is for reading only, and this tool is not declared read-only")
        return grant


def token_in(meta: Mapping[str, Any] | None) -> object:
    """What the caller sent as its grant; None where it sent none."""
    said = meta.get("_meta") if meta else None
    return said.get(META_KEY) if isinstance(said, dict) else None


def with_grant(meta: dict[str, Any] | None, grant: Grant | None) -> dict[str, Any]:
    """For the tool's server: what was granted in place of the token, which goes no further (a confused deputy's)."""
    said = dict((meta or {}).get("_meta") or {})
    said.pop(META_KEY, None)
    if grant is not None:
        said[META_KEY] = grant.shown()
    return {**(meta or {}), "_meta": said}
