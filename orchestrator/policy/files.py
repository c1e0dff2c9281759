"""The folder of policies: `*.cedar`, and `limits.toml`. Reads and checks; refuses to decide.

A folder is read whole or not at all: one wrong line leaves the policies that were in force.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.policy.cedar import Rules
from orchestrator.policy.limits import Limits, Per, Quota, Rate
from tasks.errors import SettingsError
from tasks.invocation import PROJECT_PATTERN, TENANT_PATTERN
from tasks.scopes import Role

LIMITS = "limits.toml"
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Tenant = Annotated[str, Field(pattern=rf"^{TENANT_PATTERN.pattern}$")]


@dataclass(frozen=True, slots=True)
class Folder:
    """What is in force."""

    rules: Rules
    limits: Limits
    digest: str
    """Of the files: the same policies have the same."""
    files: tuple[str, ...]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Rate(_Table):
    name: _Name
    per: Per
    calls_per_s: float = Field(gt=0, le=1e6)
    burst: float = Field(ge=1, le=1e6)
    tools: tuple[_Name, ...] = ()
    tenants: frozenset[_Tenant] = frozenset()
    roles: frozenset[Role] = frozenset()


class _Quota(_Table):
    name: _Name
    tenant: _Tenant
    project: Annotated[str, Field(pattern=rf"^{PROJECT_PATTERN.pattern}$")] | None = None
    calls_per_day: int | None = Field(None, ge=0)
    tokens_per_day: int | None = Field(None, ge=0)
    usd_per_day: float | None = Field(None, ge=0)
    runs: int | None = Field(None, ge=0)


class _File(_Table):
    version: Literal[1] = 1
    rate: list[_Rate] = []
    quota: list[_Quota] = []


def read(folder: Path) -> Folder:
    """Everything in it.

    Raises:
        SettingsError: naming the file and what is wrong.
    """
    texts = _texts(folder)
    rules = Rules({name: text for name, text in texts.items() if name != LIMITS})
    limits = _limits(folder / LIMITS, texts[LIMITS]) if LIMITS in texts else Limits()
    joined = "\0".join(f"{name}\0{text}" for name, text in sorted(texts.items()))
    return Folder(rules, limits, hashlib.sha256(joined.encode()).hexdigest(), tuple(sorted(texts)))


def stamp(folder: Path) -> object:
    """Another one when a file of it may have changed."""
    try:
        found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError as error:
        return str(error)
    return [(name, seen.st_mtime_ns, seen.st_size, seen.st_ino) for name, seen in found]


def _texts(folder: Path) -> dict[str, str]:
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == ".cedar" or path.name == LIMITS)
        texts = {path.name: path.read_text(encoding="utf-8") for path in found}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"MCPFLEET_POLICY_DIR: {error}") from error
    if not any(name.endswith(".cedar") for name in texts):
        raise SettingsError(
            f"MCPFLEET_POLICY_DIR: {folder} has no *.cedar file, and without one nothing would be permitted; "
            "docs/policy.md has one to begin with"
        )
    return texts


def _limits(path: Path, text: str) -> Limits:
    try:
        form = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path.name} is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise SettingsError(f"{path.name}: {where} is {str(first['input'])[:80]!r}: {first['msg']}") from error
    names = [one.name for one in form.rate] + [one.name for one in form.quota]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{path.name}: two limits are named {name!r}; a refusal names one")
    rates: list[dict[str, Any]] = [one.model_dump() for one in form.rate]
    return Limits(
        tuple(Rate(**{**rate, "tools": tuple(rate["tools"])}) for rate in rates),
        tuple(Quota(**one.model_dump()) for one in form.quota),
    )
