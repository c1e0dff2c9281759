"""A call at the door: everything that can be refused before it is durable, is.

Owns the rules for project ids, capabilities, deadlines and sizes; the answer is a `NewInvocation`
ready for the ledger. Refuses to write anything but large arguments, which go to the blob store.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import NAMESPACE_OID, uuid5

import orjson

from orchestrator.intake.schema import Schemas
from orchestrator.ledger.values import NewInvocation
from tasks.clock import Clock
from tasks.errors import (
    BacklogFull,
    DeadlinePassed,
    InvalidArguments,
    InvalidCall,
    InvalidProject,
    NotFound,
    PayloadTooLarge,
    ReservedProject,
    SpawnLimit,
    UnknownCapability,
    UnknownTool,
    Unopened,
)
from tasks.ids import new_id
from tasks.invocation import LABEL_PATTERN, PROJECT_PATTERN, Call, Invocation, Lane, Principal, State
from tasks.outcome import Outcome
from tasks.secretref import TENANT_ITSELF
from tasks.tool import ToolSpec
from tasks.tracing import INVOCATION, below


class Fleet(Protocol):
    """What the joined nodes offer."""

    tools_version: int

    def tool(self, name: str) -> ToolSpec | None: ...
    def tools(self) -> dict[str, ToolSpec]: ...
    def capabilities(self) -> set[str]: ...
    def pools(self) -> set[str]: ...


class Blobs(Protocol):
    """Where payloads over the inline limit go."""

    async def put(self, data: bytes) -> str: ...
    async def get(self, digest: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one call may carry, and how many may wait.

    Attributes:
        inline_bytes: arguments up to this size travel in the ledger and the message.
        payload_bytes: larger arguments are refused.
        backlog: calls that may wait; further ones are refused until some were released.
        spawn_depth: parents that a call may have, one above the other.
        spawn_descendants: calls that one call may lead to in all.
    """

    inline_bytes: int
    payload_bytes: int
    backlog: int
    spawn_depth: int = 4
    spawn_descendants: int = 100


class Books(Protocol):
    """The ledger."""

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation: ...


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a call comes from. Nothing, for one that no run made."""

    root: str | None = None
    depth: int = 0
    descendants_max: int | None = None


class Intake:
    """Checks calls and turns them into rows."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        blobs: Blobs,
        books: Books,
        limits: Limits,
        clock: Clock,
        waiting: Callable[[], int],
        has_pool: Callable[[str], bool],
    ) -> None:
        self._fleet, self._blobs, self._limits, self._clock = fleet, blobs, limits, clock
        self._waiting, self._has_pool, self._books = waiting, has_pool, books
        self._schemas = Schemas()

    async def admit(self, call: Call, principal: Principal) -> NewInvocation:
        """Check one call.

        Raises:
            InvalidCall: and its children, each naming what is wrong.
            BacklogFull: too much is waiting already.
            NotFound: its parent is unknown.
        """
        waiting = self._waiting()
        if waiting >= self._limits.backlog:
            raise BacklogFull(waiting, self._limits.backlog)
        now_s = self._clock.wall_s()
        spec = self._known(call)
        _check_project(call.project)
        self._check_requirements(call)
        _check_deadline(call, now_s)
        self._check_arguments(call, spec)
        _check_lane(call, spec)
        for later in call.then:
            _check_lane(later, self._known(later))
            _check_project(later.project)
            self._check_requirements(later)
        return await self._row(call, spec, principal, now_s, await self._lineage(call, principal))

    async def _lineage(self, call: Call, principal: Principal) -> Lineage:
        """How many descendants there are is counted where the row is written.

        Raises:
            NotFound: no such parent for this tenant.
            SpawnLimit: its parents are too many.
        """
        if call.parent is None:
            return Lineage()
        parent = await self._books.get(call.parent, principal.tenant)
        depth, limit = parent.depth + 1, self._limits.spawn_depth
        if depth > limit:
            raise SpawnLimit(parent.id, f"{parent.depth} parents above it", limit, "MCPFLEET_SPAWN_DEPTH")
        return Lineage(parent.root or parent.id, depth, self._limits.spawn_descendants)

    async def successors(self, invocation: Invocation, outcome: Outcome) -> tuple[NewInvocation, ...]:
        """The next call of a chain, after `invocation` succeeded with `outcome`.

        Its arguments were not known before, so its server is what checks them.

        Raises:
            NotFound: the result it needs is gone from the blob store.
            Unopened: what it is called with was sealed, and its key is not at hand.
        """
        first, *rest = invocation.call.then
        try:
            arguments = orjson.loads(first.arguments_json)
        except orjson.JSONDecodeError as error:  # the ledger hands out as it stands what it cannot open
            raise Unopened(
                f"the arguments of {first.tool} were sealed under a key that the key file has not, or were changed; "
                "the log's call_not_opened names it (MCPFLEET_KEY_FILE)"
            ) from error
        if first.into:
            arguments[first.into] = plain_result(orjson.loads(await self._result(outcome)))
        raw = orjson.dumps(arguments)
        call = replace(
            first,
            # Derived: where the answer to a settlement is lost and it is judged again, it is the same call.
            invocation_id=first.invocation_id or str(uuid5(NAMESPACE_OID, f"{invocation.id}/then")),
            arguments_json=raw.decode(),
            then=tuple(rest),
            trace_id=invocation.call.trace_id,
            trace_parent=below(invocation.id, INVOCATION, invocation.call.trace_parent),
            project=first.project or invocation.call.project,
            parent=invocation.call.parent,
        )
        blob = await self._blobs.put(raw) if len(raw) > self._limits.inline_bytes else None
        # Counted with the others, and never refused: a settlement that could not take would be sent for ever.
        lineage = Lineage(invocation.root, invocation.depth)
        spec, now_s = self._fleet.tool(call.tool), self._clock.wall_s()
        return (self._fresh(call, spec, invocation.principal, now_s, blob=blob, lineage=lineage),)

    async def _result(self, outcome: Outcome) -> bytes | str:
        if outcome.result_blob is not None:
            return await self._blobs.get(outcome.result_blob)
        return outcome.result_json or "{}"

    def _known(self, call: Call) -> ToolSpec:
        spec = self._fleet.tool(call.tool)
        if spec is None:
            raise UnknownTool(call.tool, list(self._fleet.tools()))
        return spec

    def _check_requirements(self, call: Call) -> None:
        if call.pool is not None and not self._has_pool(call.pool):
            raise NotFound("pool", call.pool, sorted(self._fleet.pools()))
        if not call.requires:
            return
        known = self._fleet.capabilities()
        for capability in call.requires:
            if not LABEL_PATTERN.fullmatch(capability) or capability not in known:
                raise UnknownCapability(capability, sorted(known))

    def _check_arguments(self, call: Call, spec: ToolSpec) -> None:
        size = len(call.arguments_json.encode())
        if size > self._limits.payload_bytes:
            raise PayloadTooLarge("the arguments object", size, self._limits.payload_bytes)
        try:
            arguments: Any = orjson.loads(call.arguments_json)
        except orjson.JSONDecodeError as error:
            raise InvalidArguments(call.tool, "/", f"not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise InvalidArguments(call.tool, "/", "arguments must be one JSON object")
        self._schemas.check(spec, arguments, version=self._fleet.tools_version)

    async def _row(
        self, call: Call, spec: ToolSpec, principal: Principal, now_s: float, lineage: Lineage
    ) -> NewInvocation:
        raw = call.arguments_json.encode()
        blob = await self._blobs.put(raw) if len(raw) > self._limits.inline_bytes else None
        return self._fresh(call, spec, principal, now_s, blob=blob, lineage=lineage)

    def _fresh(
        self,
        call: Call,
        spec: ToolSpec | None,
        principal: Principal,
        now_s: float,
        *,
        blob: str | None,
        lineage: Lineage,
    ) -> NewInvocation:
        identity = call.invocation_id or new_id(now_s)
        seen = _digest(call)
        lane = call.lane or (spec.lane if spec else Lane.TOOLS)
        settled = replace(
            call,
            invocation_id=identity,
            arguments_json="{}" if blob else call.arguments_json,
            timeout_s=call.timeout_s or (spec.timeout_s if spec else None),
            trace_id=call.trace_id or secrets.token_hex(16),
        )
        row = Invocation(
            id=identity,
            call=settled,
            principal=principal,
            lane=lane,
            state=State.WAITING,
            accepted_at=now_s,
            root=lineage.root,
            depth=lineage.depth,
        )
        limit = lineage.descendants_max
        return NewInvocation(invocation=row, call_digest=seen, arguments_blob=blob, descendants_max=limit)


def _digest(call: Call) -> str:
    """Of what makes two posts the same call: the order of keys does not, where and when it runs does not."""
    arguments = orjson.dumps(orjson.loads(call.arguments_json), option=orjson.OPT_SORT_KEYS)
    steps = [f"{step.tool}\0{step.arguments_json}" for step in call.then]
    said = "\0".join([call.tool, call.project or "", *sorted(call.requires), *steps])
    return hashlib.sha256(said.encode() + b"\0" + arguments).hexdigest()


def plain_result(result: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    """What a chain passes on: the structured content, else the text, else the whole result."""
    if result.get("structuredContent") is not None:
        return result["structuredContent"]
    texts = [part.get("text", "") for part in result.get("content", ()) if part.get("type") == "text"]
    return "\n".join(texts) if texts else result


def _check_lane(call: Call, spec: ToolSpec) -> None:
    if call.lane is Lane.TOOLS and spec.lane is Lane.AGENTS:
        raise InvalidCall(f"{spec.name} is an agent's and runs in the lane agents; leave out the lane")


def _check_project(project: str | None) -> None:
    if project is not None and not PROJECT_PATTERN.fullmatch(project):
        raise InvalidProject(project)
    if project == TENANT_ITSELF:
        raise ReservedProject(project)


def _check_deadline(call: Call, now_s: float) -> None:
    if call.expires_at is not None and call.expires_at <= now_s:
        raise DeadlinePassed(now_s - call.expires_at)
    if call.expires_at is not None and call.not_before is not None and call.not_before >= call.expires_at:
        raise InvalidCall("the call may not start before its deadline is over; change not_before or expires_at")
