"""A foreign issuer that the operator trusts, and what its claims mean here. Pure.

Refuses what a token must not decide: the roles of nodes, and a tenant the operator did not allow. A role that is
not one of ours is nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.identity.oauth import claims as checked
from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.jose import ALGORITHMS
from tasks.invocation import TENANT_PATTERN, Principal
from tasks.scopes import GIVEN, Scope

ENTRIES_MAX = 500
"""Roles or groups in one token."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, as `[issuers.NAME]` of the file that `MCPFLEET_OAUTH_FILE` names.

    Attributes:
        name: ours; principals are called `NAME:sub`, so that two issuers' `sub` are two principals.
        issuer: its URL, exactly as its tokens and its metadata say it.
        audiences: `aud` values that stand for us; none: the URLs of our doors, each at its own door.
        types: `typ` of its access tokens. Keycloak's is `JWT`.
        algorithms: that it signs with.
        tenant: of all its principals; none: what the claim `tenant_claim` says.
        tenant_claim: names the tenant; a token without it is refused.
        tenants: that the claim may name; none: any.
        id_claim: who it is.
        roles_claim: a list, or words; dots lead into objects, as `realm_access.roles`.
        roles: its role to ours; none: those of the same name.
        groups_claim: a list of groups.
        scope_claim: words, or a list.
        is_scope_needed: a token that names no scope of ours may do nothing; else it may do what its roles may.
        ca_file: certificates (PEM) that its own is checked against; none: the public ones.
    """

    name: str
    issuer: str
    audiences: tuple[str, ...] = ()
    types: tuple[str, ...] = ("at+jwt",)
    algorithms: tuple[str, ...] = ALGORITHMS
    tenant: str = ""
    tenant_claim: str = "tenant"
    tenants: tuple[str, ...] = ()
    id_claim: str = "sub"
    roles_claim: str = "roles"
    roles: Mapping[str, str] = field(default_factory=dict)
    groups_claim: str = "groups"
    scope_claim: str = "scope"
    is_scope_needed: bool = False
    ca_file: str = ""


def principal_of(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    """Who a token stands for whose signature and claims hold.

    Args:
        issuer: its rules.
        claims: of the token.

    Raises:
        BadToken: it names no tenant, or one that this issuer may not name.
    """
    named = frozenset(words(_at(claims, issuer.scope_claim))) & frozenset(Scope)
    return Principal(
        id=f"{issuer.name}:{checked.text(claims, issuer.id_claim)}",
        tenant=_tenant(issuer, claims),
        roles=_roles(issuer, words(_at(claims, issuer.roles_claim))),
        scopes=named if named or issuer.is_scope_needed else None,
        groups=frozenset(words(_at(claims, issuer.groups_claim), is_list=True)),
        credential=credential(claims),
    )


def credential(claims: Mapping[str, Any]) -> str:
    """What an audit calls the token: its `jti`, never its text."""
    jti = claims.get("jti")
    return f"jwt:{jti[: checked.NAME_MAX_CHARS]}" if isinstance(jti, str) and jti.isprintable() else "jwt"


def words(value: object, *, is_list: bool = False) -> list[str]:
    """A claim's strings: a list's, or those of a text between blanks (`is_list`: the text is one)."""
    if isinstance(value, str):
        value = [value] if is_list else value.split()
    if not isinstance(value, list):
        return []
    if len(value) > ENTRIES_MAX:
        raise BadToken(f"a claim in it has more than {ENTRIES_MAX} entries")
    return [one for one in value if isinstance(one, str) and 0 < len(one) <= checked.NAME_MAX_CHARS]


def _tenant(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    if issuer.tenant:
        return issuer.tenant
    found = _at(claims, issuer.tenant_claim)
    if not isinstance(found, str) or not TENANT_PATTERN.fullmatch(found):
        raise BadToken(
            f"it names no tenant ({issuer.tenant_claim})", f"have {issuer.issuer} put that claim into its tokens"
        )
    if issuer.tenants and found not in issuer.tenants:
        raise BadToken("it names a tenant that its issuer does not speak for")
    return found


def _roles(issuer: Issuer, found: Collection[str]) -> frozenset[str]:
    ours = {issuer.roles.get(one) for one in found} if issuer.roles else set(found)
    return frozenset(one for one in ours if one in GIVEN)


def _at(claims: Mapping[str, Any], path: str) -> object:
    """The claim of that very name (names may be URLs with dots), else the one the dots lead to."""
    if path in claims:
        return claims[path]
    found: object = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
