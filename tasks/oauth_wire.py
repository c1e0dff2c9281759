"""The HTTP API's JSON about OAuth clients of the built-in authorization server. As `tasks/wire.py`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

NAME_CHARS = 200
_OVERLAP_MAX_S = 30 * 86_400


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class OAuthClientRequest(_In):
    """POST /v1/oauth/clients."""

    name: str = Field(min_length=1, max_length=NAME_CHARS, examples=["ci of project shop"])
    tenant: str | None = Field(None, max_length=63)
    """The caller's own where it is absent."""
    roles: list[str] = Field(min_length=1, max_length=10, examples=[["agent"]])
    scopes: list[str] | None = Field(None, max_length=50)
    """The most that it may ask for; absent: all that its roles allow."""
    groups: list[str] = Field(default_factory=list, max_length=50)
    jwk: dict[str, Any] | None = None
    """Its public key, for private_key_jwt; absent: it gets a secret."""


class OAuthRotateRequest(_In):
    """POST /v1/oauth/clients/{id}/rotate."""

    overlap_s: float = Field(0.0, ge=0, le=_OVERLAP_MAX_S)
    """The old secret is good for so long beside the new one."""
    jwk: dict[str, Any] | None = None
    """The new public key; absent: a new secret."""


class OAuthKeysRequest(_In):
    """POST /v1/oauth/keys/rotate."""

    withdraw: bool = False
    """Forget the old keys at once: every token that they signed is refused."""


class OAuthKeysView(_Out):
    """The key that signs from now on."""

    kid: str


class OAuthClientView(_Out):
    """A client. Its secret is in the answer that made it, and nowhere else."""

    client_id: str
    name: str
    tenant: str
    roles: list[str]
    scopes: list[str] | None
    groups: list[str]
    authentication: str
    """`client_secret`, or `private_key_jwt`."""
    created_at: float
    created_by: str
    revoked_at: float | None
    client_secret: str | None = None
