"""What agents spent on models, summed up, on the wire: `GET /v1/costs`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class CostView(_Out):
    """A sum of what was spent."""

    key: str | None
    """Project, model, node, tool or day (`2026-11-21`, UTC); None: calls without a project, or the sum of all."""
    calls: int
    requests: int
    """To models."""
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: float | None
    """Of the requests that have a price; None where none has."""
    unpriced_requests: int
    """Whose cost nobody knows: it is not in `cost_usd`."""
    is_estimated: bool


class CostsView(_Out):
    """GET /v1/costs."""

    by: Literal["project", "model", "node", "tool", "day"]
    since: float
    until: float | None
    """None: until now."""
    rows: list[CostView]
    total: CostView
    is_cut: bool = False
    """There are more rows; `total` is of all."""
