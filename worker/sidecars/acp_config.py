"""How an ACP agent is told of its model, and what it is given: templates of the node's configuration. Pure.

Each agent has its own variables and files for the address, the key and the model. They are written with
`{base_url}`, `{token}` and `{model}` in them; nothing else in braces is touched, for many files are JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

PORT = 8471
"""On the loopback of a run's own network, where nobody else is."""
VARIABLE = f"MCPFLEET_MODEL_URL:{PORT}"
"""For `inside.py`."""
BASE_URL = f"http://127.0.0.1:{PORT}"
MODEL = "{model}"


@dataclass(frozen=True, slots=True)
class AcpSettings:
    """What this node's agent is."""

    command: tuple[str, ...]
    """As it is called inside the sandbox."""
    egress: Path
    """The unix socket that `Egress` listens on."""
    read_only: Mapping[Path, str] = field(default_factory=dict)
    """Of the node, to where it is inside: the agent's program."""
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    """By their paths in HOME: text, or what is written as JSON."""
    version: str | None = None
    """The one that was asked for; None takes any."""
    auth_method: str | None = None
    model: str | None = None

    @property
    def takes_model(self) -> bool:
        """Some template names it."""
        return MODEL in str([self.command, self.environ, self.files])


@dataclass(frozen=True, slots=True)
class Filled:
    """For one run."""

    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str] = field(repr=False)


def filled(settings: AcpSettings, *, token: str, model: str) -> Filled:
    """The templates with what they stand for."""
    words = {"{base_url}": BASE_URL, "{token}": token, MODEL: model}

    def put(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, str):
            for name, word in words.items():
                value = value.replace(name, word)
            return value
        if isinstance(value, Mapping):
            return {put(key): put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list | tuple) else value

    files = {path: put(value) for path, value in settings.files.items()}
    return Filled(
        tuple(put(settings.command)),
        put(settings.environ),
        {path: value if isinstance(value, str) else orjson.dumps(value).decode() for path, value in files.items()},
    )
