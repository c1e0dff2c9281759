"""JSON as a carrier must treat it: integers over 64 bits keep every digit, both ways.

orjson alone reads them as floats and refuses to write them.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from pydantic_core import from_json


def read(text: str | bytes) -> Any:  # noqa: ANN401 - JSON is anything
    """The value of one JSON text.

    Raises:
        ValueError: it is not JSON.
    """
    return from_json(text, allow_inf_nan=False, cache_strings="keys")


def write(value: object) -> bytes:
    """Compact JSON text."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
