"""A tool's input schema as lines a person can read and type from. Pure.

Refuses to validate; shows the usual subset of JSON Schema and names what it leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from shlex import quote

_SAMPLES: dict[str, str] = {
    "string": "TEXT",
    "integer": "1",
    "number": "1.5",
    "boolean": "true",
    "array": "a,b",
    "object": "'{…}'",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One argument."""

    name: str
    type: str
    is_required: bool
    default: str
    description: str


def fields_of(schema: Mapping[str, object]) -> list[Field]:
    """The arguments, required ones first, otherwise in the schema's order."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return []
    required = schema.get("required")
    needed = set(required) if isinstance(required, list) else set()
    found = [_field(str(name), form, schema, name in needed) for name, form in properties.items()]
    return sorted(found, key=lambda field: not field.is_required)


def example(tool: str, schema: Mapping[str, object]) -> str:
    """A command line that calls it, with the required arguments."""
    words = [f"mcpfleet call {tool}"]
    properties = schema.get("properties")
    forms = properties if isinstance(properties, Mapping) else {}
    words += [
        f"{field.name}={_sample(field, forms.get(field.name))}" for field in fields_of(schema) if field.is_required
    ]
    return " ".join(words)


def _field(name: str, form: object, schema: Mapping[str, object], is_required: bool) -> Field:
    held = form if isinstance(form, Mapping) else {}
    default = json.dumps(held["default"], ensure_ascii=False) if "default" in held else ""
    description = " ".join(str(held.get("description") or "").split())
    return Field(name, type_words(held, schema), is_required, default, description)


def type_words(form: object, schema: Mapping[str, object], depth: int = 0) -> str:
    """`string`, `integer 0…10`, `"a" | "b"`, `[string]`, `object`, `string | null`."""
    if not isinstance(form, Mapping) or depth > 4:  # noqa: PLR2004 - a person stops reading
        return "any"
    if isinstance(form.get("enum"), list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in form["enum"])
    if "const" in form:
        return json.dumps(form["const"], ensure_ascii=False)
    options = form.get("anyOf") or form.get("oneOf")
    if isinstance(options, list):
        return " | ".join(dict.fromkeys(type_words(option, schema, depth + 1) for option in options))
    if isinstance(form.get("$ref"), str):
        return type_words(_resolve(form["$ref"], schema), schema, depth + 1)
    kinds = form.get("type")
    if isinstance(kinds, list):
        return " | ".join(str(kind) for kind in kinds)
    if kinds == "array":
        return f"[{type_words(form.get('items', {}), schema, depth + 1)}]"
    return f"{kinds or 'any'}{_bounds(form)}"


def _bounds(form: Mapping[str, object]) -> str:
    low = form.get("minimum", form.get("minLength"))
    high = form.get("maximum", form.get("maxLength"))
    above, below = form.get("exclusiveMinimum"), form.get("exclusiveMaximum")
    words = [
        f"{low}…{high}" if low is not None and high is not None else "",
        f"≥{low}" if low is not None and high is None else "",
        f"≤{high}" if high is not None and low is None else "",
        f">{above}" if above is not None else "",
        f"<{below}" if below is not None else "",
    ]
    said = " ".join(word for word in words if word)
    return f" {said}" if said else ""


def _sample(field: Field, form: object) -> str:
    if field.default:
        return quote(field.default.strip('"'))
    if isinstance(form, Mapping):
        if isinstance(form.get("enum"), list) and form["enum"]:
            return quote(str(form["enum"][0]))
        if isinstance(form.get("examples"), list) and form["examples"]:
            return quote(str(form["examples"][0]))
    return next((sample for kind, sample in _SAMPLES.items() if field.type.startswith(kind)), "TEXT")


def _resolve(reference: object, schema: Mapping[str, object]) -> object:
    place: object = schema
    for step in str(reference).removeprefix("#/").split("/"):
        place = place.get(step) if isinstance(place, Mapping) else None
    return place
