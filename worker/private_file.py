"""A file for this node's eyes only, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.errors import SettingsError


def write_private(path: Path, data: bytes) -> None:
    """Mode 0600, on the disk when this returns.

    Raises:
        SettingsError: it cannot be.
    """
    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be kept ({error.strerror}); check the disk and the directory") from error
