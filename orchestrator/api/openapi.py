"""The OpenAPI 3.1 document, made from the operations and the wire models: it cannot drift.

Source: OpenAPI Specification 3.1.0; JSON Schema 2020-12, which pydantic writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator.api.operation import Answer, Operation
from tasks.wire import Problem

Refs = dict[tuple[str, object], dict[str, Any]]
REF = "#/components/schemas/{model}"
ALWAYS = {400: "malformed request", 413: "the body is over the limit", 415: "the body is not JSON",
          422: "a member or a parameter is wrong", 429: "the backlog is full", 500: "an error in the orchestrator",
          503: "something the orchestrator needs does not answer"}  # fmt: skip
GUARDED = {401: "no token, or an unknown one", 403: "the token may not do this"}
SOMETIMES = {
    404: "no such thing",
    409: "it is not in a state that allows this, or the idempotency key is taken",
    410: "nobody waits for it any more",
}
WITH_BODY = frozenset({400, 413, 415, 429})
PATH_FORMS: dict[str, dict[str, Any]] = {"sha256": {"pattern": "^[0-9a-f]{64}$"}}
BUSY = frozenset({429, 503})


def document(operations: Iterable[Operation], *, title: str, version: str) -> dict[str, Any]:
    """The document of these operations."""
    operations = list(operations)
    inputs: set[type[BaseModel]] = {operation.body for operation in operations if operation.body is not None}
    outputs: set[type[BaseModel]] = {
        answer.model for operation in operations for answer in operation.answers.values() if answer.model
    }
    modes: list[tuple[type[BaseModel], Any]] = [(one, "validation") for one in sorted(inputs, key=_name)]
    outputs.add(Problem)
    modes += [(one, "serialization") for one in sorted(outputs, key=_name)]
    refs, schemas = models_json_schema(modes, ref_template=REF)
    ref_of: Refs = {(str(mode), one): ref for (one, mode), ref in refs.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(documented_path(operation.path), {})[operation.method.lower()] = _operation(operation, ref_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": "One fleet of nodes, one API. See docs/api.md."},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def documented_path(path: str) -> str:
    """A route's path as OpenAPI writes it: no converters."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(operation: Operation, ref_of: Refs) -> dict[str, Any]:
    form: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": {
            **{str(status): _answer(answer, ref_of) for status, answer in operation.answers.items()},
            **_problems(operation, ref_of),
        },
        "security": [] if operation.scope is None else [{"token": []}],
    }
    if operation.scope is not None:
        form["x-scope"] = operation.scope
    if operation.body is not None:
        content = {"application/json": {"schema": ref_of["validation", operation.body]}}
        form["requestBody"] = {"required": True, "content": content}
    if operation.takes_stream:
        form["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    return form


def _answer(answer: Answer, ref_of: Refs) -> dict[str, Any]:
    form: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        form["content"] = {answer.media_type: {"schema": ref_of["serialization", answer.model]}}
    elif answer.media_type != "application/json":
        form["content"] = {answer.media_type: {"schema": {"type": "string"}}}
    if answer.headers:
        form["headers"] = {name: {"schema": {"type": "string"}} for name in answer.headers}
    return form


def _problems(operation: Operation, ref_of: Refs) -> dict[str, Any]:
    has_body = operation.body is not None or operation.takes_stream
    words = {status: word for status, word in ALWAYS.items() if has_body or status not in WITH_BODY}
    words |= GUARDED if operation.scope is not None else {}
    words |= {status: (SOMETIMES | GUARDED)[status] for status in operation.errors}
    content = {"application/problem+json": {"schema": ref_of["serialization", Problem]}}
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return {
        str(status): {"description": word, "content": content, **({"headers": retry} if status in BUSY else {})}
        for status, word in sorted(words.items())
    }


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", documented_path(operation.path))
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", **PATH_FORMS.get(name, {})}}
        for name in names
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(ref_template=REF)
    definitions = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "schema": _inlined(part, definitions), "description": part.get("description", "")}
        for name, part in schema["properties"].items()
    ]


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401 - a JSON schema is any JSON
    """Query schemas are small: their references are written out; null is what leaving it out means."""
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rsplit("/", 1)[1]], definitions)
    kept = {key: _inlined(value, definitions) for key, value in part.items() if key not in {"title", "default"}}
    choices = [one for one in kept.pop("anyOf", []) if one != {"type": "null"}]
    return {**kept, **choices[0]} if choices else kept


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": header.name,
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": header.max_chars},
            "description": header.description,
        }
        for header in operation.headers
    ]
