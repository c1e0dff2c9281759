"""pydantic's faults in our words: what to write instead, in the form "write …". Pure.

Refuses to say where the fault is and what stood there: the caller knows its file, table or option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Problem = Mapping[str, Any]
"""One entry of `ValidationError.errors()`."""
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a table",
    "mapping": "a table",
    "dataclass": "a table",
    "model": "a table",
}
_FIELDS = {"missing": "must be given", "extra_forbidden": "is not known here; leave it out"}
_BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "{} or less"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_too_short": ("min_length", "at least {} characters"),
    "too_short": ("min_length", "at least {}"),
    "too_long": ("max_length", "at most {}"),
}
_OWN = ("value_error", "assertion_error")


def wanted(problem: Problem) -> str:
    """What to write; a rule of a model's own keeps its words."""
    kind, bounds = str(problem["type"]), problem.get("ctx") or {}
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        limit = bounds.get(name)
        return f"write {text.format(f'{limit:g}' if isinstance(limit, float) else limit)}"
    if kind in ("enum", "literal_error"):
        return f"write {str(bounds.get('expected', '')).replace(chr(39), '')}"
    if kind in _OWN:
        return str(bounds.get("error", problem["msg"]))
    if kind == "string_pattern_mismatch":
        return f"write what fits {bounds.get('pattern', '')}"
    family = kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float").removesuffix("_exact")
    return f"write {_KINDS[family]}" if family in _KINDS else _other(problem)


def wanted_of_field(problem: Problem) -> str:
    """The same of a request's field, which may also be missing, or one too many."""
    return _FIELDS.get(str(problem["type"])) or wanted(problem)


def _other(problem: Problem) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
