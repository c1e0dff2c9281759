"""Resource types: what an operator declares that agents may ask for, and on which terms.

Owns the file's form and the shipped examples. Refuses to decide: `decide.py` does. A type that nobody declared
does not exist: there is no default risk, and nothing to be granted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tasks.errors import SettingsError
from tasks.grant import LIFETIME_MAX_S
from tasks.scopes import GIVEN, Role

NAME = r"^[A-Z][A-Z0-9_]{0,62}$"
SCOPE = r"^[a-z0-9][a-z0-9_:./-]{0,62}$"
"""No blanks, and no pattern characters: a scope is a word, and `*` is none."""
Scope = Annotated[str, StringConstraints(pattern=SCOPE)]
Name = Annotated[str, StringConstraints(pattern=NAME)]


class Decider(StrEnum):
    """Who says yes."""

    POLICY = "policy"
    PERSON = "person"
    BOTH = "both"
    """The policy first; where it allows, a person is asked."""


class Restrictions(BaseModel):
    """What a grant of this type always says. The node sees to `read_only`; the tool's server reads the others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    read_only: bool = False
    """Only tools that their server declares read-only (`readOnlyHint`) take it."""
    max_rows: int | None = Field(default=None, ge=1)
    no_pii: bool = False
    audit: bool = False
    """The tool's server is to keep a record of its own."""

    def given(self) -> dict[str, bool | int]:
        """Those that hold."""
        return {name: value for name, value in self.model_dump().items() if value not in {None, False}}


class ResourceType(BaseModel):
    """One kind of thing that needs a grant."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    description: str = Field(default="", max_length=500)
    risk: int = Field(ge=0, le=100)
    """For policies, and shown to people."""
    scopes: tuple[Scope, ...] = Field(min_length=1)
    """All there are."""
    default_scope: tuple[Scope, ...] = ()
    """Where a request names none; empty: it must."""
    lifetime_s: float = Field(default=600.0, gt=0, le=LIFETIME_MAX_S)
    """Where a request names none."""
    lifetime_max_s: float = Field(default=3600.0, gt=0, le=LIFETIME_MAX_S)
    restrictions: Restrictions = Restrictions()
    decided_by: Decider = Decider.POLICY
    approvers: frozenset[str] = frozenset({Role.ADMIN, Role.OPERATOR})
    """Roles of people who may answer; they need the scope `grants:write` too."""
    justification_chars_min: int = Field(default=20, ge=0, le=2000)
    """A shorter one is refused. It makes people say something to be read later; it never helps."""
    trust_min: int = Field(default=0, ge=0, le=100)
    """Of the requester's connection; below it nothing is granted, whatever the policy says."""
    answer_within_s: float = Field(default=3600.0, gt=0, le=7 * 86_400.0)
    """A person has so long to answer; then it is a no."""

    @model_validator(mode="after")
    def _agrees(self) -> ResourceType:
        if unknown := set(self.default_scope) - set(self.scopes):
            raise ValueError(f"default_scope {', '.join(sorted(unknown))} is not among scopes")
        if self.lifetime_s > self.lifetime_max_s:
            raise ValueError("lifetime_s is above lifetime_max_s")
        if unknown_roles := self.approvers - GIVEN:
            raise ValueError(f"approvers: {', '.join(sorted(unknown_roles))} is no role that people have")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    resources: dict[Name, ResourceType]


EXAMPLES = """\
# What agents may ask AuthGuardian for. Copy it, change it, and name it in MCPFLEET_GUARD_FILE.
# decided_by: policy, person, or both (the policy first, then a person). Times are seconds.

[resources.SAP_API]
description = "Orders and stock in SAP"
risk = 50
scopes = ["orders:read", "orders:write", "stock:read"]
default_scope = ["orders:read"]
lifetime_s = 600
lifetime_max_s = 3600
restrictions = { max_rows = 1000, audit = true }
decided_by = "policy"

[resources.FINANCIAL_API]
description = "Ledgers, invoices and payments"
risk = 80
scopes = ["invoices:read", "payments:read", "payments:write"]
lifetime_s = 300
lifetime_max_s = 900
restrictions = { no_pii = true, audit = true }
decided_by = "both"
justification_chars_min = 40
trust_min = 50

[resources.EXTERNAL_SERVICE]
description = "Services outside the company"
risk = 40
scopes = ["get", "post"]
default_scope = ["get"]
lifetime_s = 600
lifetime_max_s = 3600
decided_by = "policy"

[resources.DATA_EXPORT]
description = "Data that leaves the fleet"
risk = 90
scopes = ["files", "tables"]
lifetime_s = 300
lifetime_max_s = 1800
restrictions = { read_only = true, max_rows = 10000, no_pii = true, audit = true }
decided_by = "person"
justification_chars_min = 40
"""


def read_types(file: Path | None) -> Mapping[str, ResourceType]:
    """What the operator declared; the examples where no file is named.

    Raises:
        SettingsError: the file cannot be read, or says something else.
    """
    if file is None:
        return parse_types(EXAMPLES, source="the examples")
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"MCPFLEET_GUARD_FILE {file}: {error}") from error
    return parse_types(text, source=str(file))


def parse_types(text: str, *, source: str) -> Mapping[str, ResourceType]:
    """As `read_types`, from text.

    Raises:
        SettingsError: naming the place and what is wrong there.
    """
    try:
        return _File.model_validate(tomllib.loads(text)).resources
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source} is no TOML: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in fault["loc"])
        raise SettingsError(f"{source}: {where}: {fault['msg']}") from error
