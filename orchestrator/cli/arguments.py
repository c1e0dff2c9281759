"""`key=value` words into a tool's arguments, typed by the tool's JSON schema. Pure.

`key=value` takes its type from the schema, `key:=json` is JSON whatever the schema says, and
`key=@file` reads a string from a file (as httpie does). Refuses to validate: the orchestrator does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

from orchestrator.cli.exits import BadInput
from tasks.errors import near

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_JSON_TYPES = ("null", "boolean", "integer", "number", "array", "object", "string")

SHOWN_CHARS = 60
Schema = Mapping[str, object]
Reader = Callable[[str], str]
"""Reads a named file as text; passed in so that this module stays pure."""


def parse_words(words: Sequence[str], schema: Schema, read: Reader) -> dict[str, object]:
    """All words, later ones winning; a key given twice whose type is array collects its values.

    Raises:
        BadInput: a word without `=`, or a value that its type cannot hold.
    """
    found: dict[str, object] = {}
    for word in words:
        key, value = _parse_word(word, schema, read)
        before = found.get(key)
        if isinstance(before, list) and isinstance(value, list):
            found[key] = [*before, *value]
        else:
            found[key] = value
    return found


def parse_object(text: str, source: str) -> dict[str, object]:
    """One JSON object, from `--args-json`.

    Raises:
        BadInput: not JSON, not an object, or a key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source} is not JSON ({error}); give one object such as '{{\"key\": 1}}'") from error
    if not isinstance(value, dict):
        raise BadInput(f"{source} holds a JSON {_kind(value)}, but the arguments of a tool are one object")
    return value


def needs_schema(words: Sequence[str]) -> bool:
    """Whether any word's type must be looked up."""
    return any(not _is_raw(word) for word in words)


def _is_raw(word: str) -> bool:
    key, _, _ = word.partition("=")
    return key.endswith(":")


def _parse_word(word: str, schema: Schema, read: Reader) -> tuple[str, object]:
    key, mark, text = word.partition("=")
    if not mark or not key.rstrip(":"):
        raise BadInput(f"{word!r} is not key=value; write key=value, or key:=JSON for raw JSON")
    if key.endswith(":"):
        return key[:-1], _raw(key[:-1], text)
    if text.startswith("@") and len(text) > 1:
        text = read(text[1:])
    elif text.startswith("\\@"):
        text = text[1:]
    return key, _typed(key, text, schema)


def _raw(key: str, text: str) -> object:
    try:
        value: object = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{key}:={_short(text)} is not JSON ({error})") from error
    return value


def _typed(key: str, text: str, schema: Schema) -> object:
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    if key not in known:
        if known and schema.get("additionalProperties") is False:
            raise BadInput(f"the tool has no argument {key!r}{near(key, list(known))}; it takes {', '.join(known)}")
        return text
    types = _types_of(known[key], schema)
    for kind in _JSON_TYPES:
        if kind in types:
            taken, value = _convert(kind, text, known[key], schema)
            if taken:
                return value
    if not types:
        return text
    raise BadInput(f"{key}={_short(text)} is not {_article(types)}")


def _convert(kind: str, text: str, form: object, schema: Schema) -> tuple[bool, object]:
    match kind:
        case "string":
            return True, text
        case "boolean":
            lowered = text.lower()
            return lowered in _TRUE | _FALSE, lowered in _TRUE
        case "integer" | "number":
            return _number(kind, text)
        case "null":
            return text == "null", None
        case "array":
            return _array(text, form, schema)
        case _:
            return _json_of(text, dict)


def _number(kind: str, text: str) -> tuple[bool, object]:
    try:
        return True, int(text)
    except ValueError:
        pass
    if kind == "integer":
        return False, None
    try:
        value = float(text)
    except ValueError:
        return False, None
    return math.isfinite(value), value


def _array(text: str, form: object, schema: Schema) -> tuple[bool, object]:
    if text.lstrip().startswith("["):
        return _json_of(text, list)
    items = form.get("items") if isinstance(form, Mapping) else None
    item_schema = {"properties": {"": items}, "$defs": schema.get("$defs")}
    parts = text.split(",") if text else []
    try:
        return True, [_typed("", part, item_schema) if items else part for part in parts]
    except BadInput:
        return False, None


def _json_of(text: str, kind: type) -> tuple[bool, object]:
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return False, None
    return isinstance(value, kind), value


def _types_of(form: object, schema: Schema, depth: int = 0) -> frozenset[str]:
    """Types that a property allows; `anyOf`, `oneOf` and local `$ref`s are looked into."""
    if not isinstance(form, Mapping) or depth > len(_JSON_TYPES):
        return frozenset()
    declared = form.get("type")
    found: set[str] = {declared} if isinstance(declared, str) else set(declared or ())
    for key in ("anyOf", "oneOf"):
        for option in form.get(key) or ():
            found |= _types_of(option, schema, depth + 1)
    reference = form.get("$ref")
    if isinstance(reference, str):
        found |= _types_of(_resolve(reference, schema), schema, depth + 1)
    if not found and isinstance(form.get("enum"), list):
        found = {_kind(value) for value in form["enum"]}
    return frozenset(found)


def _resolve(reference: str, schema: Schema) -> object:
    place: object = schema
    for step in reference.removeprefix("#/").split("/"):
        place = place.get(step) if isinstance(place, Mapping) else None
    return place


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
    return found


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _article(types: frozenset[str]) -> str:
    names = [f"{'an' if kind[0] in 'aio' else 'a'} {kind}" for kind in _JSON_TYPES if kind in types]
    return " or ".join(names)


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…")
