"""What the API says of a project that was erased."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ErasureView(BaseModel):
    """What became of a project that was erased."""

    model_config = ConfigDict(frozen=True)
    project: str
    calls: int
    blobs: int
    secrets: int
    still_open: int
    """Calls that have not ended, and are left."""
    kept: tuple[str, ...]
    """What is left, and why."""
