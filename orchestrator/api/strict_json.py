"""JSON as it enters: one reading only, limited in depth, nothing silently dropped.

A repeated key is refused, because two readers of the same text may each take another value.
Finding one costs a pass in Python over every object, so a cheap proof of absence goes first: if
the parsed value, written again, has as many colons as the text, then no pair was dropped.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson
from pydantic_core import from_json

from tasks.errors import InvalidCall

DEPTH_MAX = 64
"""Objects and arrays within one another; below every parser's and schema checker's own limit."""


class MalformedJson(InvalidCall):
    """The body is not JSON we accept."""

    code = "malformed_json"
    http_status = 400


def parse(text: bytes) -> Any:  # noqa: ANN401 - JSON is anything
    """The value of one JSON text.

    Raises:
        MalformedJson: no JSON, a repeated key, too deep, or a number no double can hold.
    """
    try:
        value = from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        if "recursion" in str(error):
            raise MalformedJson(f"JSON is nested deeper than {DEPTH_MAX} levels") from None
        raise MalformedJson(f"the body is not JSON: {error}") from None
    if text.count(b"{") + text.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        raise MalformedJson(f"JSON is nested deeper than {DEPTH_MAX} levels")
    if not _is_whole(text, value):
        _read_slowly(text)
    return value


def write(value: object) -> str:
    """Compact JSON text of a parsed value; integers over 64 bits keep every digit."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_whole(text: bytes, value: object) -> bool:
    r"""True proves that nothing was dropped; False proves nothing.

    A colon is either between a key and its value or, raw, in a string (`\:` is not JSON, `\u003a`
    is excluded here). Written again the strings have the same colons, so a dropped pair shows as
    one fewer. An infinity is written as null and shows the same way.
    """
    if b"\\u" in text:
        return False
    try:
        again = orjson.dumps(value)
    except TypeError:
        return False
    return again.count(b":") == text.count(b":") and again.count(b"null") == text.count(b"null")


def _depth(value: object) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        node, level = todo.pop()
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        if inner is not None:
            deepest = max(deepest, level)
            todo.extend((child, level + 1) for child in inner)
    return deepest


def _read_slowly(text: bytes) -> None:
    json.loads(text.decode(), object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_constant)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedJson(f"the key {twice[:80]!r} is given twice in one object; send it once")
    return members


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise MalformedJson(f"the number {number[:40]} is out of range")
    return value


def _constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON")
