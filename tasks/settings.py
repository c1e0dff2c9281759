"""Read a frozen pydantic model from the environment, once, at start.

A field `redis_url` of a model read with prefix `MCPFLEET_` is the variable `MCPFLEET_REDIS_URL`. A
variable under the prefix that no field claims stops the start: a misspelt setting that is silently
ignored costs more than a start that says so. Refuses to be read below a bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr, ValidationError

from tasks.errors import SettingsError, near

M = TypeVar("M", bound=BaseModel)
SHOWN_CHARS = 80
"""Of a refused value in a message: enough to recognise it, not enough to flood a terminal."""


def read(
    model: type[M],
    prefix: str,
    env: Mapping[str, str],
    *,
    excluding: tuple[str, ...] = (),
    given: Mapping[str, object] | None = None,
) -> M:
    """The model, from its defaults, then `env`, then what was `given` on the command line.

    Args:
        model: a frozen model; every field has a default or is required on purpose.
        prefix: of the variables, e.g. `MCPFLEET_NODE_`.
        env: usually `os.environ`.
        excluding: longer prefixes that belong to another process and are left alone.
        given: by field name; None values count as not given.

    Raises:
        SettingsError: an unknown variable, or a value that the field refuses.
    """
    values: dict[str, object] = {}
    for variable, text in env.items():
        if not variable.startswith(prefix) or any(variable.startswith(other) for other in excluding):
            continue
        name = variable.removeprefix(prefix).lower()
        if name not in model.model_fields or variable != variable_of(name, prefix):
            raise _unknown(model, prefix, variable)
        values[name] = _parse(model, name, text)
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_complaint(model, prefix, error)) from None


def variable_of(name: str, prefix: str) -> str:
    """The environment variable of a field."""
    return f"{prefix}{name.upper()}"


def changed(settings: BaseModel) -> list[str]:
    """Names of fields that differ from their defaults. Names only: a value may be a secret."""
    return sorted(
        name
        for name, kind in type(settings).model_fields.items()
        if name in settings.model_fields_set
        and (kind.is_required() or getattr(settings, name) != kind.get_default(call_default_factory=True))
    )


def _unknown(model: type[BaseModel], prefix: str, variable: str) -> SettingsError:
    known = [variable_of(name, prefix) for name in model.model_fields]
    return SettingsError(
        f"{variable} is not a setting{near(variable.upper(), known)}; unset it, or see docs/settings.md for all of them"
    )


def _parse(model: type[BaseModel], name: str, text: str) -> object:
    """JSON where it looks like JSON; else `a,b` for sequences and `k=v,k=v` for mappings."""
    kind = _container(model.model_fields[name].annotation)
    if kind is None:
        return text
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind is dict:
        return dict(part.partition("=")[::2] for part in parts)
    return parts


def _container(annotation: object) -> type | None:
    """`dict` or `list` where a field holds several values, also behind `| None`."""
    for candidate in (annotation, *get_args(annotation)):
        origin = get_origin(candidate)
        if origin in (dict, Mapping):
            return dict
        if origin in (list, tuple, set, frozenset):
            return list
    return None


def _complaint(model: type[BaseModel], prefix: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        variable = variable_of(name, prefix)
        if problem["type"] == "missing":
            lines.append(f"{variable} is not set and has no default")
            continue
        lines.append(f"{variable} is {_shown(model, name, problem['input'])}: {problem['msg']}")
    return "; ".join(lines)


def _shown(model: type[BaseModel], name: str, value: object) -> str:
    field = model.model_fields.get(name)
    annotation = field.annotation if field else None
    if annotation is SecretStr or SecretStr in get_args(annotation):
        return "set to a value that is not shown"
    return repr(value)[:SHOWN_CHARS]
