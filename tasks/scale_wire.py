"""The HTTP API's JSON about machines: enrolment, and what the autoscaler sees, did, would do.

As `tasks/wire.py`: pydantic, because bytes enter and leave here. Money is euros, times are seconds.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.node import NAME_PATTERN

WEEK_S = 7 * 86_400


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
