"""Read a frozen pydantic model from the environment, once, at start.

A field `redis_url` of a model read with prefix `MCPFLEET_` is the variable `MCPFLEET_REDIS_URL`, or the content of
the file that `MCPFLEET_REDIS_URL_FILE` names: a container's environment is shown to whoever may inspect it, a file
is not. A variable under the prefix that no field claims stops the start: a misspelt setting that is silently
ignored costs more than a start that says so. Refuses to be read below a bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr, ValidationError

from tasks.errors import SettingsError, near

M = TypeVar("M", bound=BaseModel)
SHOWN_CHARS = 80
"""Of a refused value in a message: enough to recognise it, not enough to flood a terminal."""
BY_FILE = "_FILE"
"""Behind a setting's variable: the value is in that file. Fields of their own that end so keep their meaning."""
FILE_LIMIT_BYTES = 64 * 1024
"""Of such a file: a value, not a volume named by mistake."""


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
        excluding: what belongs to another process and is left alone: prefixes, which end with `_`, and whole names.
        given: by field name; None values count as not given.

    Raises:
        SettingsError: an unknown variable, a file that cannot be read, or a value that the field refuses.
    """
    values: dict[str, object] = {}
    filed: set[str] = set()
    for variable, text in env.items():
        if not variable.startswith(prefix) or any(_is_of(variable, other) for other in excluding):
            continue
        name, is_filed = _named(model, prefix, variable)
        if not is_filed:
            values[name] = _parse(model, name, text)
        elif variable_of(name, prefix) in env:
            raise SettingsError(f"{variable_of(name, prefix)} and {variable} are both set; keep one")
        else:
            filed.add(name)
            values[name] = _parse(model, name, _content(variable, text))
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_complaint(model, prefix, error, filed)) from None


def value_of(env: Mapping[str, str], variable: str) -> str | None:
    """One setting alone, as `read` takes it: by its variable, or by a file; None: neither is set.

    Raises:
        SettingsError: the file cannot be read.
    """
    if (text := env.get(variable)) or not (path := env.get(variable + BY_FILE)):
        return text or None
    return _content(variable + BY_FILE, path)


def variable_of(name: str, prefix: str) -> str:
    """The environment variable of a field."""
    return f"{prefix}{name.upper()}"


def _is_of(variable: str, other: str) -> bool:
    """A whole name is no prefix: `MCPFLEET_URL` is the command line's, `MCPFLEET_URL_FOR_NODES` is not."""
    return variable.startswith(other) if other.endswith("_") else variable in {other, other + BY_FILE}


def _named(model: type[BaseModel], prefix: str, variable: str) -> tuple[str, bool]:
    """The field that a variable sets, and whether by a file."""
    for end in ("", BY_FILE):
        name = variable.removeprefix(prefix).removesuffix(end).lower()
        if name in model.model_fields and variable == variable_of(name, prefix) + end:
            return name, bool(end)
    raise _unknown(model, prefix, variable)


def _content(variable: str, path: str) -> str:
    """What is in a file, without the line end that editors and `openssl rand` put there."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(FILE_LIMIT_BYTES + 1).decode()
    except OSError as error:
        detail = error.strerror or "it cannot be read"
        raise SettingsError(f"{variable} names {path}: {detail}; name a file that this user may read") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable} names {path}, which is not text; name a file with the value alone") from None
    if len(text) > FILE_LIMIT_BYTES:
        raise SettingsError(
            f"{variable} names {path}, which is larger than {FILE_LIMIT_BYTES} bytes; name the right file"
        )
    if not (value := text.rstrip("\r\n")):
        raise SettingsError(f"{variable} names {path}, which is empty; put the value into it")
    return value


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


def _complaint(model: type[BaseModel], prefix: str, error: ValidationError, filed: set[str]) -> str:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        variable = variable_of(name, prefix)
        if problem["type"] == "missing":
            lines.append(f"{variable} is not set and has no default")
        elif name in filed:
            lines.append(f"{variable}{BY_FILE} names a file with a value that is not shown: {problem['msg']}")
        else:
            lines.append(f"{variable} is {_shown(model, name, problem['input'])}: {problem['msg']}")
    return "; ".join(lines)


def _shown(model: type[BaseModel], name: str, value: object) -> str:
    field = model.model_fields.get(name)
    annotation = field.annotation if field else None
    if annotation is SecretStr or SecretStr in get_args(annotation):
        return "set to a value that is not shown"
    return repr(value)[:SHOWN_CHARS]
