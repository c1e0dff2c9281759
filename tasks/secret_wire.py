"""Secrets on the wire: what a node asks for when it starts a server, and what people set and see.

Wire forms only. A value is in two of them: `SecretRequest`, on its way in, and `SecretGiven`, on its way to
the node that may have it. Both hold it masked, and nothing else in the API answers with one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

from tasks.secretref import VALUE_LIMIT_BYTES

REFS_MAX = 100
"""Of one server."""
ALLOWED_MAX = 200
ANY = "*"
Source = Literal["database", "file", "vault"]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretsRequest(_Wire):
    """POST /v1/nodes/{name}/secrets, with the node's own token: it is about to start `server`."""

    server: str = Field(max_length=63)
    """Whose process gets them; for the record."""
    refs: tuple[str, ...] = Field(min_length=1, max_length=REFS_MAX)
    with_values: bool = True
    """False asks for versions alone: whether something that runs has to be started again."""


class SecretGiven(_Wire):
    """One secret that this node may have."""

    ref: str
    version: str
    """Changes when the value does; nothing can be learnt from it."""
    value: SecretStr | None = None

    @field_serializer("value", when_used="json")
    def _revealed(self, value: SecretStr | None) -> str | None:
        return None if value is None else value.get_secret_value()


class SecretWithheld(_Wire):
    """One that it may not have, or that is not there; which of both is not said."""

    ref: str
    why: str


class SecretsReply(_Wire):
    """Each ref that was asked for is in one of both."""

    given: tuple[SecretGiven, ...] = ()
    withheld: tuple[SecretWithheld, ...] = ()


class SecretRequest(_Wire):
    """PUT /v1/secrets/{owner}/{name}: a new secret, or a new version of one."""

    value: SecretStr | None = Field(default=None, max_length=VALUE_LIMIT_BYTES)
    """Of source `database` alone. Text without NUL."""
    source: Source | None = None
    """Where the value is. None: as it was; `database` for a new one."""
    nodes: tuple[str, ...] | None = Field(default=None, max_length=ALLOWED_MAX)
    """Names of nodes that may have it, or `*`. None: as it was."""
    pools: tuple[str, ...] | None = Field(default=None, max_length=ALLOWED_MAX)
    """Pools whose nodes may have it, or `*`. None: as it was."""

    @field_serializer("value", when_used="json")
    def _revealed(self, value: SecretStr | None) -> str | None:
        return None if value is None else value.get_secret_value()


class SecretView(_Wire):
    """What is shown of a secret: everything but its value."""

    ref: str
    owner: str
    name: str
    source: Source
    version: int
    nodes: tuple[str, ...]
    pools: tuple[str, ...]
    created_at: float
    """Seconds of the Unix epoch; `changed_at` too."""
    changed_at: float
    changed_by: str
    key: str | None = None
    """The key-encryption key that it is sealed under."""


class RewrapView(_Wire):
    """POST and GET /v1/secret-rewraps: what is sealed under the newest key now."""

    key: str
    secrets: int
    """How many were under an older one; 0 in the answer to GET."""
    blobs: int = 0
    """Sealed payloads on disk, the same."""
    texts: int = 0
    """In rows of the ledger, until now: arguments, results, questions, OAuth's signing keys."""
    unopened: int = 0
    """Texts that were left as they are, because they do not open."""
    is_running: bool = False
    """Rows are still being done."""
    stopped: str | None = None
    """Why rows ended before their end; ask again."""
