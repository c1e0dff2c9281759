"""An answer that has to be JSON of a given form: how it is asked for, and what came of it. Pure.

Not every server keeps a model to a schema, so the answer itself is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)
_WHY_CHARS = 300


@dataclass(frozen=True, slots=True)
class Found:
    """The value, or why there is none."""

    value: Any = None
    why_not: str | None = None
    """For the model, so that it can do better."""


def wanted_json(schema: Mapping[str, Any]) -> str:
    """For the system's message."""
    return f"Your last answer is JSON and nothing else. It fits this JSON schema:\n{json.dumps(schema)}"


def answer_of(text: str, schema: Mapping[str, Any]) -> Found:
    """The JSON of an answer, also where the model put it in a fence."""
    fenced = _FENCED.search(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = json.loads(fenced.group(1)) if fenced else json.loads("")
        except (ValueError, RecursionError):
            return Found(why_not="it is not JSON alone")
    try:
        jsonschema_rs.validate(dict(schema), value)
    except jsonschema_rs.ValidationError as error:
        path = "/".join(str(step) for step in error.instance_path)
        return Found(why_not=f"at '/{path}': {error.message}"[:_WHY_CHARS])
    except ValueError as error:
        return Found(why_not=f"the schema itself is none: {error}"[:_WHY_CHARS])
    return Found(value)
