"""`--set key=value` as fields of a pool's policy. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.cli.exits import BadInput


def changes_of(words: Sequence[str], strategy: str | None = None) -> dict[str, Any]:
    """`max_machines=20`, `triggers.cpu=0.5`, `regions='["eu-*"]'`: JSON where it is JSON, else text.

    Raises:
        BadInput: a word without `=`, or a key given twice.
    """
    changes: dict[str, Any] = {} if strategy is None else {"strategy": strategy}
    for word in words:
        key, equals, text = word.partition("=")
        *tables, name = key.strip().split(".")
        if not equals or not name:
            raise BadInput(f"--set {word!r} is not KEY=VALUE, such as max_machines=20 or triggers.cpu=0.5")
        place = changes
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise BadInput(f"--set {word!r}: {table} was given a value before")
        if name in place:
            raise BadInput(f"--set {key.strip()} is given twice")
        place[name] = _value(text)
    return changes


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
