"""The options of a provider's table: read into a frozen dataclass, secrets by reference only.

For plugins too. Refuses what the dataclass does not know, and a secret that stands in the file.
"""

from __future__ import annotations

import importlib
import os
import traceback
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import Field, SecretStr, TypeAdapter, ValidationError

from orchestrator.autoscaler.cloud.provider import ProviderConfig
from orchestrator.wanted import wanted
from tasks.errors import SettingsError, near


class Dataclass(Protocol):
    """Any."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Count = Annotated[int, Field(ge=1)]
"""Of machines, as a limit."""
Span = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Seconds, or a rate, that cannot be nothing."""
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Form = TypeVar("Form", bound=Dataclass)
BY_VARIABLE, BY_FILE = "_env", "_file"


def read_options(form: type[Form], config: ProviderConfig) -> Form:
    """The options as `form`, a dataclass whose fields are what the provider knows.

    Raises:
        SettingsError: one is unknown, missing or wrong.
    """
    known = [field.name for field in fields(form)]
    for option in config.options:
        if option in known:
            continue
        if option + BY_VARIABLE in known:
            raise _wrong(
                config,
                option,
                f"is a secret and does not belong into a file; name the variable it is in with "
                f"{option}{BY_VARIABLE}, or its file with {option}{BY_FILE}",
            )
        raise _wrong(config, option, f"is not an option of {config.kind!r}{near(option, known)}")
    try:
        return TypeAdapter(form).validate_python(dict(config.options))
    except ValidationError as error:
        raise _wrong(config, *fault(error)) from None  # the cause would show the value


def fault(error: ValidationError) -> tuple[str, str]:
    """The option that is wrong, and what to write. Only a number is repeated: a text may be a secret."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return where, "is missing: write it"
    given = first["input"]
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return where, f"is {given:g}: {wanted(first)}" if is_number else f"is wrong: {wanted(first)}"


def secret(config: ProviderConfig, name: str, *, variable: str, file: str) -> SecretStr | None:
    """What the variable or the file holds; None where neither is named.

    Raises:
        SettingsError: both are named, or the one that is holds nothing.
    """
    if variable and file:
        raise _wrong(config, name + BY_FILE, f"and {name}{BY_VARIABLE} are both given; keep one")
    if variable:
        value = config.environ.get(variable, "").strip()
        if not value:
            raise _wrong(config, name + BY_VARIABLE, f"names the variable {variable}, which is empty or not set")
        return SecretStr(value)
    if file:
        try:
            value = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            detail = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is no text"
            raise _wrong(config, name + BY_FILE, f"names {file}, which cannot be read: {detail}") from None
        if not value:
            raise _wrong(config, name + BY_FILE, f"names {file}, which is empty")
        return SecretStr(value)
    return None


def needed(config: ProviderConfig, name: str, found: SecretStr | None) -> SecretStr:
    """The secret.

    Raises:
        SettingsError: there is none.
    """
    if found is None:
        raise _wrong(config, name + BY_VARIABLE, f"is missing; it, or {name}{BY_FILE}, says where the {name} is")
    return found


def vendor(config: ProviderConfig, module: str, *, extra: str) -> ModuleType:
    """The vendor's library.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{config.place} is of kind {config.kind!r}, which needs the library {error.name}: "
            f"pip install 'mcpfleet[{extra}]'"
        ) from error


def redacted(text: object, *secrets: SecretStr | None, most: int = 300) -> str:
    """What a vendor said, in one line, without our secrets and without end."""
    line = " ".join(str(text).split())
    for each in secrets:
        if each is not None and each.get_secret_value():
            line = line.replace(each.get_secret_value(), "***")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def place_of(error: Exception) -> str:
    """Kind and line of a library's stumble. Its whole traceback may show credentials, once values are printed."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"


def _wrong(config: ProviderConfig, option: str, what: str) -> SettingsError:
    return SettingsError(f"{config.place} {option} {what}")
