"""The HTTP API's JSON about the last minute. As `tasks/wire.py`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class PulseView(BaseModel):
    """GET /v1/pulse: how the last minute went."""

    model_config = ConfigDict(frozen=True)

    window_s: float
    """60, or less where the leading orchestrator has not run for so long."""
    accepted_per_s: float
    ended_per_s: float
    failed_per_s: float
    """Of those that ended: failed, expired or lost."""
    wait_p50_s: float | None
    """From accepted, or due, to released; None: nothing was released."""
    wait_p95_s: float | None
