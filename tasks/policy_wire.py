"""Policies as they pass over the wire: what is in force, and one question with its answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.identity_wire import NAME, TENANT
from tasks.invocation import PROJECT_PATTERN, TRUST_LEAST
from tasks.scopes import Role


class PolicyView(BaseModel):
    """What is in force."""

    is_on: bool
    """Without a folder of policies, scopes and tenants alone decide."""
    files: list[str] = []
    policies: list[str] = []
    """Their ids."""
    limits: list[str] = []
    digest: str | None = None
    problem: str | None = None
    """Why the folder as it is now is not in force."""


class QuestionRequest(BaseModel):
    """May this one call that, or run it there?"""

    model_config = ConfigDict(extra="forbid")
    principal: str = Field(pattern=NAME)
    tenant: str | None = Field(None, pattern=TENANT, description="the asker's own when absent")
    roles: list[Role] = Field([Role.AGENT], max_length=5)
    groups: list[Annotated[str, Field(pattern=NAME)]] = Field([], max_length=32)
    trust: int = Field(TRUST_LEAST, ge=0, le=100)
    action: Literal["call", "see", "use"] = "call"
    tool: str | None = Field(None, max_length=200, description="of `call` and `see`")
    node: str | None = Field(None, max_length=64, description="of `use`")
    project: str | None = Field(None, pattern=rf"^{PROJECT_PATTERN.pattern}$")


class DecisionView(BaseModel):
    """The answer."""

    is_allowed: bool
    why: str
    policies: list[str]
    """Ids of those that decided."""
    errors: list[str]
