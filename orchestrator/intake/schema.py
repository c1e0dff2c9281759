"""Arguments against a tool's JSON schema, before anything is queued.

Validators are compiled once per schema. A schema that cannot be compiled (its server's mistake)
checks nothing here: the server itself then judges. References to other documents are never fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import structlog

from tasks.errors import InvalidArguments
from tasks.tool import ToolSpec

log = structlog.get_logger("mcpfleet.intake")
Arguments = dict[str, Any]
Check = Callable[[Arguments], None]


class Schemas:
    """Compiled validators by tool; emptied when the fleet's tools change."""

    def __init__(self) -> None:
        self._version = -1
        self._compiled: dict[str, Any] = {}

    def check(self, spec: ToolSpec, arguments: Arguments, *, version: int) -> None:
        """Refuse arguments that break the tool's schema.

        Args:
            spec: the tool.
            arguments: one JSON object.
            version: of the fleet's tools; a change forgets what was compiled.

        Raises:
            InvalidArguments: naming the first path that is wrong.
        """
        if version != self._version:
            self._version, self._compiled = version, {}
        name = spec.name
        if name not in self._compiled:
            self._compiled[name] = _compile(spec)
        validator = self._compiled[name]
        if validator is None or validator.is_valid(arguments):
            return
        error = next(iter(validator.iter_errors(arguments)))
        raise InvalidArguments(name, _path(error.instance_path), error.message)


def _compile(spec: ToolSpec) -> Any:  # noqa: ANN401 - a validator of one of several drafts
    try:
        return jsonschema_rs.validator_for(spec.input_schema, retriever=_refuse)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        log.warning("schema_unusable", tool=spec.name, error=str(error)[:300])
        return None


def _refuse(uri: str) -> Any:  # noqa: ANN401 - never returns
    raise ValueError(f"a tool's schema may not refer to {uri}")


def _path(parts: list[str | int]) -> str:
    """JSON Pointer. Source: RFC 6901."""
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)
