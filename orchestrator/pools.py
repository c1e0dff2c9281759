"""The operator's pools file: `[pools.<name>]` tables with the fields of `tasks.pool.PoolPolicy`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tasks.errors import SettingsError, near
from tasks.pool import PoolPolicy

_FIELDS = [field.name for field in fields(PoolPolicy) if field.name != "name"]


@dataclass(frozen=True, slots=True)
class Policies:
    """Policies by pool; pools that are not named have the defaults."""

    by_name: dict[str, PoolPolicy]

    def of(self, pool: str) -> PoolPolicy:
        """This pool's policy."""
        return self.by_name.get(pool) or PoolPolicy(pool)

    def has(self, pool: str) -> bool:
        """The operator named it, whether or not a node is in it."""
        return pool in self.by_name


def read_pools(path: Path | None) -> Policies:
    """Read the file; no file is no policies.

    Raises:
        SettingsError: the file cannot be read, or a field is unknown or wrong.
    """
    if path is None:
        return Policies({})
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the pools file {path} cannot be read: {error}") from error
    return Policies({name: _policy(path, name, table) for name, table in document.get("pools", {}).items()})


def _policy(path: Path, name: str, table: dict[str, object]) -> PoolPolicy:
    for field in table:
        if field not in _FIELDS:
            raise SettingsError(f"{path}: pools.{name}.{field} is not a setting{near(field, _FIELDS)}")
    try:
        return TypeAdapter(PoolPolicy).validate_python({"name": name, **table})
    except ValidationError as error:
        raise SettingsError(f"{path}: pools.{name}: {error.errors()[0]['msg']}") from error
