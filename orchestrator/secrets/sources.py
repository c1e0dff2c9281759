"""Where the value of a secret is, when it is not in the ledger: a file of this host, named after the secret.

    <MCPFLEET_SECRETS_DIR>/<owner>.<name>             of the default tenant
    <MCPFLEET_SECRETS_DIR>/<tenant>.<owner>.<name>    of another

Docker puts its secrets below /run/secrets, systemd its credentials into $CREDENTIALS_DIRECTORY. The name is
made from the secret's own, so that nobody who may set a secret can point it at another file, or at another
tenant's. Refuses symbolic links out of the folder, and to say more of a value than that it is wrong.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.errors import Permanent, Retryable
from tasks.secretref import DEFAULT_TENANT, VALUE_LIMIT_BYTES, Secret, SecretRef


class SecretUnavailable(Retryable):
    """Where the value is kept does not answer now."""

    code = "secret_unavailable"

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(f"{where} gives no secrets now ({detail}); the node asks again by itself")


class SecretMisplaced(Permanent):
    """Its source has no usable value under its name."""

    code = "secret_misplaced"
    http_status = 409

    def __init__(self, ref: SecretRef, detail: str) -> None:
        super().__init__(f"{ref}: {detail}")


@dataclass(frozen=True, slots=True)
class Found:
    """A value, and the version of it that its source tells."""

    value: Secret
    version: str


class ValueSource(Protocol):
    """One place with values."""

    async def read(self, ref: SecretRef) -> Found:
        """The value.

        Raises:
            SecretUnavailable: it does not answer.
            SecretMisplaced: there is none, or none that can be one.
        """
        ...


class FileSource:
    """A folder with one file for each secret."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, ref: SecretRef) -> Found:
        """As `ValueSource`. A newline at the file's end is an editor's, not the secret's."""
        return await asyncio.to_thread(self._read, ref)

    def _read(self, ref: SecretRef) -> Found:
        parts = (ref.owner, ref.name) if ref.tenant == DEFAULT_TENANT else (ref.tenant, ref.owner, ref.name)
        path = self._folder / ".".join(parts)
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self._folder.resolve()):
                raise SecretMisplaced(ref, f"{path} leads out of {self._folder}; put the file itself there")
            with real.open("rb") as file:
                data = file.read(VALUE_LIMIT_BYTES + 2)
            changed = real.stat()
        except FileNotFoundError:
            raise SecretMisplaced(ref, f"there is no file {path}; mount the secret under that name") from None
        except OSError as error:
            raise SecretUnavailable(str(path), error.strerror or "it cannot be read") from None
        return Found(usable(ref, data), f"file-{changed.st_mtime_ns}-{changed.st_ino}")


def usable(ref: SecretRef, data: bytes) -> Secret:
    """Bytes as a secret: text without NUL, not empty, within the limit. Raises SecretMisplaced."""
    if len(data) > VALUE_LIMIT_BYTES + 1:
        raise SecretMisplaced(ref, f"its value is longer than {VALUE_LIMIT_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SecretMisplaced(ref, "its value is not UTF-8 text; encode it, in base64 for example") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\0" in text:
        raise SecretMisplaced(ref, "its value is empty or has a NUL, which no environment variable can hold")
    return Secret(text)
