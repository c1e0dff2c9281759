"""API keys, challenges and who one is, as they pass over the wire."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tasks.invocation import TENANT_PATTERN
from tasks.scopes import Scope

ROLE = Literal["admin", "operator", "developer", "agent", "auditor"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,62}$"
TENANT = rf"^{TENANT_PATTERN.pattern}$"
LIFETIME_MIN_S, LIFETIME_MAX_S, LIFETIME_S = 60.0, 400 * 86_400.0, 30 * 86_400.0


def _network(text: str) -> str:
    return str(ip_network(text, strict=False))


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Out(BaseModel):
    model_config = ConfigDict(extra="ignore")


class KeyRequest(_In):
    """An API key that somebody asks for."""

    name: str = Field(min_length=1, max_length=100, description="for people")
    principal: str | None = Field(None, pattern=NAME, description="whom it stands for; the key's id when absent")
    tenant: str | None = Field(None, pattern=TENANT, description="the asker's own when absent")
    roles: list[ROLE] = Field(min_length=1, max_length=5)
    scopes: list[Scope] | None = Field(None, max_length=40, description="narrows what the roles allow")
    groups: list[Annotated[str, Field(pattern=NAME)]] = Field([], max_length=32)
    networks: list[Annotated[str, Field(max_length=64), AfterValidator(_network)]] = Field(
        [], max_length=32, description="CIDR; from where it may be used"
    )
    public_key: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]{43}=?$", description="Ed25519, base64url: a key that signs challenges"
    )
    lifetime_s: float | None = Field(
        LIFETIME_S, ge=LIFETIME_MIN_S, le=LIFETIME_MAX_S, description="null: it does not expire"
    )


class KeyView(_Out):
    """An API key, without the key."""

    id: str
    name: str
    tenant: str
    principal: str
    roles: list[str]
    scopes: list[str] | None
    groups: list[str]
    networks: list[str]
    signs: bool
    """It answers challenges, and is no bearer token."""
    created_at: float
    created_by: str
    expires_at: float | None
    due_at: float | None
    """From then on its holder may rotate it."""
    succeeds: str | None
    used_at: float | None
    used_from: str | None


class IssuedKeyView(KeyView):
    """A new one. The key is kept as a digest: nobody can show it a second time."""

    key: str | None


class WhoAmIView(_Out):
    """Whoever asks."""

    id: str
    tenant: str
    roles: list[str]
    scopes: list[str]
    groups: list[str]
    credential: str
    """What it showed, by name."""


class ChallengeRequest(_In):
    """An agent that wants to connect."""

    key: str = Field(pattern=r"^[0-9A-Za-z]{10}$")


class ChallengeView(_Out):
    """To be signed: see docs/identity.md."""

    nonce: str
    expires_at: float


class SessionRequest(_In):
    """The signed nonce."""

    key: str = Field(pattern=r"^[0-9A-Za-z]{10}$")
    nonce: str = Field(max_length=64)
    signature: str = Field(max_length=100, description="Ed25519, base64url")


class SessionView(_Out):
    """A bearer token for minutes."""

    token: str
    expires_at: float
