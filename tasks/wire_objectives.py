"""The service level objectives on the wire: what is promised, and what one orchestrator measured since it began."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ObjectiveView(BaseModel):
    """One objective. Shares are between 0 and 1, durations seconds."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="constant: `short_calls_p50`, `short_calls_p99`, `availability`, `failover`")
    title: str = Field(description="a sentence: what is promised")
    kind: Literal["latency", "availability", "failover"]
    target: float = Field(description="share of events that are good, at least")
    threshold_s: float | None = Field(description="an event is good below it; null where time does not decide")
    samples: int = Field(description="events since the orchestrator began")
    bad: int = Field(description="of them, those that were not good")
    measured: float | None = Field(description="share that was good; null: no samples")
    measured_s: float | None = Field(
        description="the time that `target` of them stayed below, from a histogram; null: no samples, or not of time"
    )
    is_met: bool | None = Field(description="whether `measured` reaches `target`; null: no samples")
    budget_left: float | None = Field(
        description="share of the bad events that the target allows: 1 is untouched, 0 spent, below 0 overspent; "
        "null: no samples"
    )
    burn_rate_1h: float | None = Field(
        description="of the last hour: 1 spends the budget just as fast as is allowed; null: no samples in it"
    )


class ObjectivesView(BaseModel):
    """GET /v1/objectives. Of one process: another replica, or the one before a restart, measured its own."""

    model_config = ConfigDict(frozen=True)

    since: float = Field(description="seconds since the epoch: when this orchestrator began to measure")
    at: float = Field(description="seconds since the epoch: now")
    window_days: int = Field(description="over which Prometheus reckons the budget; this answer: since `since`")
    items: list[ObjectiveView]


class TargetsView(BaseModel):
    """A group of GET /v1/targets. Source: Prometheus, HTTP service discovery."""

    model_config = ConfigDict(frozen=True)

    targets: list[str] = Field(description="HOST:PORT")
    labels: dict[str, str]
