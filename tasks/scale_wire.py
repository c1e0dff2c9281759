"""The HTTP API's JSON about machines: enrolment, and what the autoscaler sees, did, would do.

As `tasks/wire.py`: pydantic, because bytes enter and leave here. Money is euros, times are seconds.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.node import NAME_PATTERN

WEEK_S = 7 * 86_400
OVERRIDE_MAX_S = 30 * 86_400


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class EnrolmentRequest(_In):
    """POST /v1/enrolments."""

    name: str = Field(pattern=NAME_PATTERN, examples=["builders-7"])
    pool: str = Field(pattern=NAME_PATTERN, examples=["builders"])
    ttl_s: float = Field(3600.0, gt=0, le=WEEK_S)
    """The token is good for so long; what it is traded for lasts until it is revoked."""


class EnrolmentView(_Out):
    """A one-time token. It is kept as a digest: nobody can show it a second time."""

    name: str
    pool: str
    token: str
    expires_at: float
    is_rotation: bool
    """The node has a credential, which works until this token is used."""


class ScaleReasonView(_Out):
    """One rule's word. `machines` is what it alone would have; None where it only comments."""

    rule: str
    text: str
    machines: int | None = None


class ScaleDecisionView(_Out):
    """What should be, and why."""

    pool: str
    at: float
    before: int
    """Machines that counted: ready and on the way."""
    target: int
    victims: list[str]
    cordon: list[str]
    reasons: list[ScaleReasonView]
    alerts: list[str]
    is_dry: bool


class LaneSeenView(_Out):
    """One lane of one pool, as it was seen."""

    waiting: int
    queued: int
    running: int
    slots: int
    oldest_wait_s: float
    wait_p50_s: float | None
    wait_p95_s: float | None
    arrivals_per_s: float
    service_mean_s: float | None
    error_rate: float


class PoolSeenView(_Out):
    """What a decision was made of."""

    at: float
    lanes: dict[str, LaneSeenView]
    machines: dict[str, int]
    """By the state of their claim."""
    others: int
    """Ready nodes that were not ordered: counted, never ended."""
    cpu: float | None
    memory: float | None
    boot_p90_s: float | None
    price_eur_h: float | None
    quota_left: int | None
    missing: list[str]
    has_unmet: bool
    """Calls wait that no joined node could run, and a machine of this pool could."""
    is_unknown: bool = False
    """No node of this pool was ever seen."""
    refused: list[str] = []
    """What clouds said to orders of late: no machine came of them."""


class OverrideView(_Out):
    """A person's word on the size of a pool, until it expires."""

    target: int
    until: float
    by: str


class ScalePoolView(_Out):
    """One pool that is sized: what it has, may have, and was decided last."""

    pool: str
    strategy: str
    min_machines: int
    max_machines: int
    priority: int
    budget_eur_h: float | None
    target: int | None
    """Of the last decision; None before the first."""
    machines: dict[str, int]
    """By `standing`; what is gone, or was refused and never made, is left out."""
    others: int
    cost_eur_h: float
    """Of its machines, as far as their prices are known."""
    unpriced: int
    """Machines whose price nobody knows."""
    override: OverrideView | None
    decision: ScaleDecisionView | None
    refused: int = 0
    """Orders that a cloud refused just now; they are no machines."""
    cost_today_eur: float = 0.0
    """Since midnight, UTC: price times time, of machines that are gone too."""
    cost_week_eur: float = 0.0
    """Of the last seven days."""


class ScaleView(_Out):
    """GET /v1/scale."""

    cluster: str
    is_dry: bool
    """Decisions are made and shown; nothing is ordered or ended."""
    budget_eur_h: float | None
    max_machines: int | None
    cost_eur_h: float
    pools: list[ScalePoolView]
    alerts: list[str]
    """Of machines and clouds, beside those of decisions."""
    note: str = ""
    """Why there is nothing to see."""
    cost_today_eur: float = 0.0
    """Since midnight, UTC, of all machines, those of pools that are sized no more too."""
    cost_week_eur: float = 0.0


class MachineView(_Out):
    """A machine that was ordered, from the intent to the proof that it is gone."""

    claim: str
    node: str
    pool: str
    state: str
    state_at: float
    provider: str
    type: str
    region: str
    is_spot: bool
    machine_id: str | None
    address: str | None
    created_at: float
    ready_at: float | None
    terminated_at: float | None
    expires_at: float
    price_eur_h: float | None
    reason: str
    failures: int
    error: str
    standing: str = ""
    """The claim's state, or what is truer of it now: `refused` (no machine was made), `leaving` (ready, and its node
    drains by somebody's word or its own), `left` (ready, and its node is not joined)."""


class ScaleLogView(_Out):
    """One decision of the past and what it was made of."""

    decision: ScaleDecisionView
    seen: PoolSeenView


class ScalePlanRequest(_In):
    """POST /v1/scale/plan. Changes nothing."""

    pool: str | None = Field(None, max_length=63)
    """All pools that are sized, where none is named."""
    changes: dict[str, Any] = Field(default_factory=dict, max_length=50)
    """Fields of `[pools.<name>.scale]` as they would be; `triggers` is a table of its own."""


class ScalePlanView(_Out):
    """What would be decided now."""

    decision: ScaleDecisionView
    seen: PoolSeenView


class ScaleReplayRequest(_In):
    """POST /v1/scale/replay. Changes nothing."""

    pool: str = Field(max_length=63)
    since: float
    changes: dict[str, Any] = Field(default_factory=dict, max_length=50)
    """As in a plan."""


class ReplayStepView(_Out):
    """One recorded moment: what was decided, and what would have been."""

    at: float
    before: int
    was: int
    would: int
    reasons: list[ScaleReasonView]
    """Of what would have been."""


class ReplayTotalView(_Out):
    """One side of a replay."""

    machine_h: float
    """The target, held until the next moment."""
    most: int
    changes: int
    """How often the target was another one than before."""


class ScaleReplayView(_Out):
    """What was decided and what would have been, over the same recorded observations.

    Each moment is judged with the machines that were there: what other machines would have done to
    the queue is not simulated. `make sim` does that.
    """

    pool: str
    steps: list[ReplayStepView]
    was: ReplayTotalView
    would: ReplayTotalView
    differs: int
    """Moments at which the two are not the same."""
    unreadable: int
    """Rows of another release, passed by."""
    rounds: int = 0
    """That the steps stand for: of those that decided the same as before, one in five minutes is kept."""


class OverrideRequest(_In):
    """PUT /v1/scale/override. Exactly one of `until` and `for_s`."""

    pool: str = Field(max_length=63)
    target: int = Field(ge=0, le=10_000)
    until: float | None = None
    for_s: float | None = Field(None, gt=0, le=OVERRIDE_MAX_S)

    @model_validator(mode="after")
    def _has_one_end(self) -> OverrideRequest:
        if (self.until is None) == (self.for_s is None):
            raise ValueError("say either until or for_s: an override has an end")
        return self


class DryRunRequest(_In):
    """POST /v1/scale/dry-run. Holds until it is said otherwise, over restarts too."""

    is_dry: bool
