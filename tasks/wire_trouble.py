"""What goes wrong, on the wire: circuit breakers, and how many dead letters there are. As `tasks/wire.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class CircuitView(_Out):
    """One circuit breaker that something failed behind of late; what is not listed is closed."""

    node: str
    server: str
    """MCP server; `""` stands for the whole node."""
    watches: Literal["results", "deliveries"]
    """What counts as a failure: how calls end, or that the node does not take what is sent to it."""
    state: Literal["closed", "open", "half-open"]
    """Half-open: one call may go as a probe, or is on its way as one."""
    failures: int
    """In a row."""
    opens_at_failures: int
    failed_at: float | None
    """When the last failure was counted."""
    opened_at: float | None
    probe_at: float | None
    """When the next probe may go, or a lost one is given up; None: closed."""
    is_probing: bool
    error: str
    """Of the last failure."""
    why: str


class DeadCountView(_Out):
    """How many dead letters there are of one reason."""

    reason: str
    letters: int
    replayed: int
    """Of them, replayed already."""
