"""What operators see and steer: tools, nodes, pools, queues, the backlog, pauses, dead letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api import views
from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Graveyard
from orchestrator.api.ports import Operations as Steering
from orchestrator.api.reply import Reply, listing, model
from orchestrator.api.sums import Sums
from orchestrator.ledger.dead_values import DeadFilter
from tasks.clock import Clock
from tasks.errors import NotFound
from tasks.invocation import FLEET_TENANT
from tasks.pulse_wire import PulseView
from tasks.scopes import Scope
from tasks.wire import (
    BacklogView,
    DeadLetterView,
    DiscardRequest,
    DiscardView,
    InvocationView,
    NodeStateRequest,
    NodeView,
    Page,
    PauseRequest,
    PoolView,
    QueueView,
    ReplayRequest,
    ToolView,
)
from tasks.wire_trouble import CircuitView, DeadCountView


class DeadQuery(BaseModel):
    """Which dead letters, newest first."""

    model_config = ConfigDict(extra="forbid")
    reason: str | None = Field(None, max_length=64)
    tool: str | None = Field(None, max_length=256)
    project: str | None = Field(None, max_length=256)
    until: float | None = Field(None, allow_inf_nan=False, description="ended at or before, seconds since the epoch")
    unanswered: bool = Field(default=False, description="only those that were not replayed")
    cursor: str | None = Field(None, min_length=1, max_length=200, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=500)


class DeadCountQuery(BaseModel):
    """Which dead letters are counted."""

    model_config = ConfigDict(extra="forbid")
    reason: str | None = Field(None, max_length=64)
    tool: str | None = Field(None, max_length=256)
    project: str | None = Field(None, max_length=256)
    until: float | None = Field(None, allow_inf_nan=False, description="ended at or before, seconds since the epoch")


class FleetViews:
    """The fleet as it is now."""

    def __init__(self, fleet: Steering, pulse: Callable[[], PulseView] | None = None) -> None:
        self._fleet, self._pulse = fleet, pulse or _nothing_yet

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("GET", "/v1/tools", "list_tools", Scope.TOOLS_READ,
                      "The fleet's tools", self.tools,
                      {200: Answer("all of them", Page[ToolView])}, tag="fleet"),
            Operation("GET", "/v1/tools/{name:path}", "show_tool", Scope.TOOLS_READ,
                      "One tool, with its schema", self.tool,
                      {200: Answer("the tool", ToolView)}, errors=(404,), tag="fleet"),
            Operation("GET", "/v1/nodes", "list_nodes", Scope.FLEET_READ,
                      "Nodes, their leases and load", self.nodes,
                      {200: Answer("all of them", Page[NodeView])}, tag="fleet"),
            Operation("POST", "/v1/nodes/{name}/state", "set_node_state", Scope.FLEET_WRITE,
                      "Cordon, uncordon or drain a node",
                      self.set_node_state, {200: Answer("the node", NodeView)}, body=NodeStateRequest,
                      errors=(404, 409), tag="fleet"),
            Operation("GET", "/v1/pools", "list_pools", Scope.FLEET_READ,
                      "Pools", self.pools,
                      {200: Answer("all of them", Page[PoolView])}, tag="fleet"),
            Operation("GET", "/v1/queues", "list_queues", Scope.FLEET_READ,
                      "Celery queues and what waits in them", self.queues,
                      {200: Answer("all of them", Page[QueueView])}, tag="fleet"),
            Operation("GET", "/v1/circuits", "list_circuits", Scope.FLEET_READ,
                      "Circuit breakers that something failed behind", self.circuits,
                      {200: Answer("all of them", Page[CircuitView])}, tag="fleet"),
            Operation("GET", "/v1/backlog", "backlog", Scope.FLEET_READ,
                      "What waits in the ledger", self.backlog,
                      {200: Answer("the backlog", BacklogView)}, tag="fleet"),
            Operation("GET", "/v1/pulse", "pulse", Scope.FLEET_READ,
                      "Rates and waits of the last minute", self.pulse,
                      {200: Answer("of all tenants", PulseView)}, tag="fleet"),
            Operation("POST", "/v1/pauses", "pause", Scope.FLEET_WRITE,
                      "Pause or resume a queue, pool or project", self.pause,
                      {204: Answer("done")}, body=PauseRequest, errors=(404,), tag="fleet"),
        )  # fmt: skip

    async def tools(self, ask: Ask) -> Reply:
        """GET /v1/tools."""
        return listing(self._fleet.tools(ask.principal))

    async def tool(self, ask: Ask) -> Reply:
        """GET /v1/tools/{name}."""
        tools = {tool.name: tool for tool in self._fleet.tools(ask.principal)}
        name = ask.path["name"]
        if name not in tools:
            raise NotFound("tool", name, list(tools))
        return model(tools[name])

    async def nodes(self, ask: Ask) -> Reply:
        """GET /v1/nodes. Projects bound to a node are for the fleet's own tenant: names have no tenant here."""
        seen = self._fleet.nodes()
        if ask.principal.tenant != FLEET_TENANT:
            seen = [one.model_copy(update={"projects": [], "mirrors": {}}) for one in seen]
        return listing(seen)

    async def set_node_state(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/state."""
        return model(await self._fleet.set_node_state(ask.path["name"], ask.body(NodeStateRequest).state))

    async def pools(self, _ask: Ask) -> Reply:
        """GET /v1/pools."""
        return listing(self._fleet.pools())

    async def queues(self, _ask: Ask) -> Reply:
        """GET /v1/queues."""
        return listing(await self._fleet.queues())

    async def circuits(self, ask: Ask) -> Reply:
        """GET /v1/circuits. What the last failure said is for the fleet's own tenant: it was of somebody's call."""
        seen = self._fleet.circuits()
        if ask.principal.tenant != FLEET_TENANT:
            seen = [one.model_copy(update={"error": ""}) for one in seen]
        return listing(seen)

    async def backlog(self, ask: Ask) -> Reply:
        """GET /v1/backlog. Projects' names are for the fleet's own tenant; the numbers in all are for everybody."""
        seen = self._fleet.backlog()
        if ask.principal.tenant != FLEET_TENANT:
            seen = seen.model_copy(update={"by_project": {}, "paused_projects": []})
        return model(seen)

    async def pulse(self, _ask: Ask) -> Reply:
        """GET /v1/pulse."""
        return model(self._pulse())

    async def pause(self, ask: Ask) -> Reply:
        """POST /v1/pauses."""
        wanted = ask.body(PauseRequest)
        await self._fleet.pause(wanted.kind, wanted.name, wanted.is_paused)
        return Reply(b"", 204)


def _nothing_yet() -> PulseView:
    return PulseView(
        window_s=0.0, accepted_per_s=0.0, ended_per_s=0.0, failed_per_s=0.0, wait_p50_s=None, wait_p95_s=None
    )


class DeadLetters:
    """What ended badly."""

    def __init__(self, graveyard: Graveyard, clock: Clock) -> None:
        self._graveyard = graveyard
        self._counts: Sums[Reply] = Sums(clock)
        self._answers = 0

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("GET", "/v1/dead-letters", "list_dead", Scope.INVOCATIONS_READ,
                      "Dead letters, newest first", self.list,
                      {200: Answer("one page", Page[DeadLetterView])}, query=DeadQuery, tag="dead letters"),
            Operation("GET", "/v1/dead-letters:count", "count_dead", Scope.INVOCATIONS_READ,
                      "How many dead letters there are, by reason", self.count,
                      {200: Answer("the most first", Page[DeadCountView])}, query=DeadCountQuery, tag="dead letters"),
            Operation("GET", "/v1/dead-letters/{id}", "show_dead", Scope.INVOCATIONS_READ,
                      "One dead letter, by its Invocation's id", self.show,
                      {200: Answer("the letter", DeadLetterView)}, errors=(404,), tag="dead letters"),
            Operation("POST", "/v1/dead-letters:replay", "replay_dead", Scope.INVOCATIONS_WRITE,
                      "Make new Invocations of dead letters",
                      self.replay, {202: Answer("the new ones", Page[InvocationView])}, body=ReplayRequest,
                      errors=(404, 409), tag="dead letters"),
            Operation("POST", "/v1/dead-letters:discard", "discard_dead", Scope.INVOCATIONS_WRITE,
                      "Forget dead letters", self.discard,
                      {200: Answer("how many", DiscardView)}, body=DiscardRequest,
                      errors=(404,), tag="dead letters"),
        )  # fmt: skip

    async def list(self, ask: Ask) -> Reply:
        """GET /v1/dead-letters."""
        query = ask.query(DeadQuery)
        where = DeadFilter(None, query.reason, query.tool, query.project, query.until, query.unanswered)
        letters, cursor = await self._graveyard.dead_letters(ask.principal, where, query.cursor, query.limit)
        return listing([views.dead_letter(letter) for letter in letters], cursor)

    async def count(self, ask: Ask) -> Reply:
        """GET /v1/dead-letters:count. What is answered here counts at once, new letters of many some seconds later."""
        query = ask.query(DeadCountQuery)
        where = DeadFilter(None, query.reason, query.tool, query.project, query.until)

        async def make() -> Reply:
            found = await self._graveyard.dead_counts(ask.principal, where)
            return listing([DeadCountView(**asdict(one)) for one in found])

        return await self._counts.of((ask.principal.tenant, where, self._answers), make)

    async def show(self, ask: Ask) -> Reply:
        """GET /v1/dead-letters/{id}."""
        letters, _ = await self._graveyard.dead_letters(ask.principal, DeadFilter(ask.path["id"]), None, 1)
        if not letters:
            raise NotFound("dead letter", ask.path["id"])
        return model(views.dead_letter(letters[0]))

    async def replay(self, ask: Ask) -> Reply:
        """POST /v1/dead-letters:replay."""
        again = await self._graveyard.replay_dead(ask.body(ReplayRequest).ids, ask.principal)
        self._answers += 1
        return listing([views.invocation(one) for one in again], status=202)

    async def discard(self, ask: Ask) -> Reply:
        """POST /v1/dead-letters:discard."""
        count = await self._graveyard.discard_dead(ask.body(DiscardRequest).ids, ask.principal)
        self._answers += 1
        return model(DiscardView(discarded=count))
