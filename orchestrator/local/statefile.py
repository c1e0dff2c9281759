"""The two files of a state directory: `fleet.json` while a fleet runs, `identity.json` between runs.

Both hold secrets and are written with mode 0600, whole or not at all. Refuses to guess: a file that
cannot be read is an error with its path, not an absent fleet.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import SettingsError

FLEET_FILE = "fleet.json"
IDENTITY_FILE = "identity.json"

M = TypeVar("M", bound=BaseModel)


class FleetFile(BaseModel):
    """What a client on this machine needs. There only while the fleet runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    url: str
    token: str
    join_token: str
    mcp_url: str = ""
    metrics_url: str = ""
    flower_url: str = ""
    """With its user and password; empty without Flower."""
    redis_url: str = ""
    pid: int = 0


class IdentityFile(BaseModel):
    """What stays the same from one `up` to the next, so that clients configured once stay right."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    token: str
    join_token: str
    port: int = 0
    """Of the API; taken again when it is free."""
    flower_port: int = 0
    flower_password: str


def read_fleet_file(state_dir: Path) -> FleetFile | None:
    """The running fleet, or None.

    Raises:
        SettingsError: the file is there and cannot be read.
    """
    return _read(state_dir / FLEET_FILE, FleetFile)


def read_identity(state_dir: Path) -> IdentityFile | None:
    """What an earlier run chose, or None."""
    return _read(state_dir / IDENTITY_FILE, IdentityFile)


def write_private(path: Path, model: BaseModel) -> None:
    """Write a model as JSON, as `write_text_private` does."""
    write_text_private(path, json.dumps(model.model_dump(mode="json"), indent=2) + "\n")


def write_text_private(path: Path, text: str) -> None:
    """Write `path` with mode 0600, by renaming a complete file over it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path, model: type[M]) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; it should be yours and have mode 0600") from error
    except ValidationError as error:
        raise SettingsError(f"{path} is damaged; stop the fleet and delete it") from error
