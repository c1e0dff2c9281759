"""Tables of a TOML file made into values: unknown keys, wrong types and wrong values, each said with its place.

Owns the form of the messages: file, path in it, what stands there, what to write. Refuses to know any
table of the pools file: `pools.py` and `pools_scale.py` do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from orchestrator.wanted import wanted
from tasks.errors import SettingsError, near

T = TypeVar("T")
Value = Any
"""As TOML has it."""
SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class Rule:
    """What a number must be."""

    holds: Callable[[float], bool]
    text: str


POSITIVE = Rule(lambda number: number > 0, "more than 0")
NOT_NEGATIVE = Rule(lambda number: number >= 0, "0 or more")
ONE_OR_MORE = Rule(lambda number: number >= 1, "1 or more")
SHARE = Rule(lambda number: 0 < number <= 1, "a share: more than 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Place:
    """A table of the file, for messages."""

    file: Path
    path: str = ""

    def at(self, key: str | int) -> Place:
        """One of its entries."""
        if isinstance(key, int):
            return Place(self.file, f"{self.path}[{key}]")
        return Place(self.file, f"{self.path}.{key}" if self.path else key)

    def wrong(self, why: str) -> NoReturn:
        """Refuse the file.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(f"{self.file}: {self.path or 'the file'} {why}")


def table_of(place: Place, value: Value) -> dict[str, Value]:
    """The value, which must be a table."""
    if not isinstance(value, dict):
        place.wrong(f"is {shown(value)}: write a table, [{place.path}]")
    return value


def check_keys(place: Place, table: Iterable[str], known: Sequence[str]) -> None:
    """Refuse what nobody reads."""
    for key in table:
        if key not in known:
            hint = near(key, known) or f"; known are {', '.join(known)}"
            place.at(key).wrong(f"is not a setting{hint}")


def names_of(kind: type, *but: str) -> list[str]:
    """The fields of a value's class that a file may set."""
    return [field.name for field in fields(kind) if field.name not in but]


def built(place: Place, kind: type[T], table: Mapping[str, Value], **given: Value) -> T:
    """The value of a table whose keys are known.

    Raises:
        SettingsError: a field is missing, or of another type.
    """
    check_finite(place, table)
    try:
        # By way of JSON: strict there, so that "5" is no number, and a list still becomes a tuple.
        return TypeAdapter(kind).validate_json(orjson.dumps({**table, **given}), strict=True)
    except (ValidationError, TypeError) as error:
        if not isinstance(error, ValidationError):
            place.wrong(f"holds a value of a kind that no setting has: {error}")
        problem = error.errors()[0]
        for key in problem["loc"]:
            place = place.at(key)
        if problem["type"] == "missing":
            place.wrong("is missing: write it")
        place.wrong(f"is {shown(problem['input'])}: {wanted(problem)}")


def check_finite(place: Place, value: Value) -> None:
    """TOML knows inf and nan; no setting means either."""
    if isinstance(value, float) and not math.isfinite(value):
        place.wrong(f"is {value}: write a number")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_finite(place.at(key), inner)
    if isinstance(value, list):
        for index, inner in enumerate(value):
            check_finite(place.at(index), inner)


def check_rules(place: Place, value: object, rules: Mapping[str, Rule]) -> None:
    """Every number that has a rule keeps it; one that is None has none."""
    for name, rule in rules.items():
        number = getattr(value, name)
        if number is not None and not rule.holds(number):
            place.at(name).wrong(f"is {number:g}: write {rule.text}")


def check_patterns(place: Place, patterns: Sequence[str]) -> None:
    """Patterns of regions: `*` and `?` stand for anything, and none is empty."""
    for index, pattern in enumerate(patterns):
        if not pattern.strip() or pattern != pattern.strip():
            place.at(index).wrong(f"is {pattern!r}: write a region or a pattern such as 'eu-*'")


def shown(value: Value) -> str:
    """Enough of a value to recognise it."""
    return repr(value)[:SHOWN_CHARS]
