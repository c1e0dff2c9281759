"""The autoscaler's paths: machines and money now, why, what would be; override and dry-run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Scaling
from orchestrator.api.reply import Reply, listing, model
from tasks.clock import Clock
from tasks.scale_wire import (
    DryRunRequest,
    MachineView,
    OverrideRequest,
    OverrideView,
    ScaleLogView,
    ScalePlanRequest,
    ScalePlanView,
    ScaleReplayRequest,
    ScaleReplayView,
    ScaleView,
)
from tasks.scopes import Scope
from tasks.wire import Page


class LogQuery(BaseModel):
    """Which decisions, oldest first; of those in the time, the newest."""

    model_config = ConfigDict(extra="forbid")
    pool: str | None = Field(None, max_length=63)
    since: float | None = Field(None, allow_inf_nan=False, description="seconds since the epoch")
    until: float | None = Field(None, allow_inf_nan=False, description="seconds since the epoch")
    limit: int = Field(100, ge=1, le=1000)


class OverrideQuery(BaseModel):
    """Whose override is taken back."""

    model_config = ConfigDict(extra="forbid")
    pool: str = Field("", max_length=63)


class ScaleDoor:
    """The fleet's size."""

    def __init__(self, scaling: Scaling, clock: Clock) -> None:
        self._scaling, self._clock = scaling, clock

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("GET", "/v1/scale", "scale", Scope.FLEET_READ,
                      "Pools that are sized: machines, cost, decision", self.scale,
                      {200: Answer("the fleet's size", ScaleView)}, tag="scale"),
            Operation("GET", "/v1/scale/claims", "list_machines", Scope.FLEET_READ,
                      "Machines that were ordered, newest first",
                      self.machines, {200: Answer("all of them", Page[MachineView])}, tag="scale"),
            Operation("GET", "/v1/scale/log", "scale_log", Scope.FLEET_READ,
                      "Decisions, and what they were made of", self.log,
                      {200: Answer("oldest first", Page[ScaleLogView])}, query=LogQuery, errors=(404,), tag="scale"),
            Operation("POST", "/v1/scale/plan", "plan_scale", Scope.FLEET_READ,
                      "What would be decided now; changes nothing", self.plan,
                      {200: Answer("one per pool", Page[ScalePlanView])}, body=ScalePlanRequest, errors=(404,),
                      tag="scale"),
            Operation("POST", "/v1/scale/replay", "replay_scale", Scope.FLEET_READ,
                      "What would have been decided; changes nothing",
                      self.replay, {200: Answer("moment by moment", ScaleReplayView)}, body=ScaleReplayRequest,
                      errors=(404,), tag="scale"),
            Operation("PUT", "/v1/scale/override", "set_override", Scope.FLEET_WRITE,
                      "A pool's size by hand, until it expires",
                      self.set_override, {200: Answer("it holds", OverrideView)}, body=OverrideRequest,
                      errors=(404,), tag="scale"),
            Operation("DELETE", "/v1/scale/override", "clear_override", Scope.FLEET_WRITE,
                      "Let the policy decide again",
                      self.clear_override, {204: Answer("done")}, query=OverrideQuery, errors=(404,),
                      tag="scale"),
            Operation("POST", "/v1/scale/dry-run", "set_dry_run", Scope.FLEET_WRITE,
                      "Decide without acting, or act again",
                      self.set_dry, {204: Answer("done")}, body=DryRunRequest, tag="scale"),
            Operation("POST", "/v1/scale/wind-down", "wind_down", Scope.FLEET_WRITE,
                      "The fleet stops: let all machines go, order none",
                      self.wind_down, {204: Answer("done")}, tag="scale"),
        )  # fmt: skip

    async def scale(self, _ask: Ask) -> Reply:
        """GET /v1/scale."""
        return model(await self._scaling.scale())

    async def machines(self, _ask: Ask) -> Reply:
        """GET /v1/scale/claims."""
        return listing(self._scaling.machines())

    async def log(self, ask: Ask) -> Reply:
        """GET /v1/scale/log."""
        query = ask.query(LogQuery)
        return listing(await self._scaling.log(query.pool, query.since, query.until, query.limit))

    async def plan(self, ask: Ask) -> Reply:
        """POST /v1/scale/plan."""
        wanted = ask.body(ScalePlanRequest)
        return listing(await self._scaling.plan(wanted.pool, wanted.changes))

    async def replay(self, ask: Ask) -> Reply:
        """POST /v1/scale/replay."""
        wanted = ask.body(ScaleReplayRequest)
        return model(await self._scaling.replay(wanted.pool, wanted.since, wanted.changes))

    async def set_override(self, ask: Ask) -> Reply:
        """PUT /v1/scale/override."""
        wanted = ask.body(OverrideRequest)
        until = self._clock.wall_s() + (wanted.for_s or 0.0) if wanted.until is None else wanted.until
        return model(await self._scaling.set_override(wanted.pool, wanted.target, until, ask.principal.id))

    async def clear_override(self, ask: Ask) -> Reply:
        """DELETE /v1/scale/override."""
        await self._scaling.clear_override(ask.query(OverrideQuery).pool)
        return Reply(b"", 204)

    async def set_dry(self, ask: Ask) -> Reply:
        """POST /v1/scale/dry-run."""
        await self._scaling.set_dry(ask.body(DryRunRequest).is_dry)
        return Reply(b"", 204)

    async def wind_down(self, _ask: Ask) -> Reply:
        """POST /v1/scale/wind-down."""
        await self._scaling.wind_down()
        return Reply(b"", 204)
