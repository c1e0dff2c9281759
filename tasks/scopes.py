"""What a principal may do: scopes, the roles that stand for them, and the one question.

Owns the table. Refuses to know which operation needs which scope: each operation names its own.
A scope is good within the principal's tenant. Those of `FLEET_WIDE` are about what all tenants share, so
they are good for principals of the fleet's own tenant alone, whatever roles another tenant's have.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from tasks.errors import Permanent
from tasks.invocation import FLEET_TENANT, Principal


class Scope(StrEnum):
    """One thing that may be allowed. Names as OAuth writes them (RFC 6749, section 3.3)."""

    INVOCATIONS_READ = "invocations:read"
    INVOCATIONS_WRITE = "invocations:write"
    """Call tools, cancel, replay and discard."""
    TOOLS_READ = "tools:read"
    APPROVALS_READ = "approvals:read"
    APPROVALS_WRITE = "approvals:write"
    """Answer what runs ask of people."""
    COSTS_READ = "costs:read"
    FLEET_READ = "fleet:read"
    """Nodes, pools, queues, machines."""
    FLEET_WRITE = "fleet:write"
    """Cordon, drain, pause, scale, enrol."""
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    """API keys and OAuth clients of one's tenant."""
    SECRETS_READ = "secrets:read"
    """That they exist; nobody reads a value."""
    SECRETS_WRITE = "secrets:write"
    PROJECTS_ERASE = "projects:erase"
    """Forget all that the fleet keeps of a project of one's tenant."""
    AUDIT_READ = "audit:read"
    POLICY_READ = "policy:read"
    GRANTS_READ = "grants:read"
    """Grants of the tenant, and what became of requests."""
    GRANTS_REQUEST = "grants:request"
    """Ask AuthGuardian, for oneself."""
    GRANTS_REQUEST_FOR = "grants:request-for"
    """Ask for the agents of one's tenant: for a service that runs them, never for an agent."""
    GRANTS_WRITE = "grants:write"
    """Answer requests, and revoke any grant of one's tenant."""
    METRICS_READ = "metrics:read"
    BLOBS = "blobs"
    """Payloads by their digest."""
    NODE_ENROL = "node:enrol"
    NODE_JOIN = "node:join"
    NODE = "node"
    """A joined node, for itself."""


class Role(StrEnum):
    """What an operator gives a principal."""

    ADMIN = "admin"
    OPERATOR = "operator"
    DEVELOPER = "developer"
    AGENT = "agent"
    AUDITOR = "auditor"
    NODE = "node"
    JOIN = "join"
    ENROL = "enrol"


GIVEN = frozenset({Role.ADMIN, Role.OPERATOR, Role.DEVELOPER, Role.AGENT, Role.AUDITOR})
"""Roles that people give; the others come with a node's own credentials and with nothing else."""
FLEET_WIDE = frozenset({Scope.FLEET_WRITE, Scope.METRICS_READ, Scope.BLOBS})
_OF_NODES = frozenset({Scope.NODE, Scope.NODE_JOIN, Scope.NODE_ENROL})
_CALLS = frozenset({Scope.INVOCATIONS_READ, Scope.INVOCATIONS_WRITE, Scope.TOOLS_READ})
_READS = frozenset(scope for scope in Scope if scope.endswith(":read"))
_ASKS = _CALLS | {Scope.GRANTS_REQUEST}
_SHARES = _ASKS | {Scope.GRANTS_READ}
_WORKS = _SHARES | {Scope.APPROVALS_READ, Scope.APPROVALS_WRITE, Scope.COSTS_READ, Scope.FLEET_READ, Scope.POLICY_READ}
_ANSWERS = frozenset({Scope.GRANTS_WRITE})

SCOPES_OF: dict[str, frozenset[Scope]] = {
    Role.ADMIN: frozenset(Scope) - _OF_NODES,
    Role.OPERATOR: _WORKS | _ANSWERS | {Scope.FLEET_WRITE, Scope.METRICS_READ, Scope.KEYS_READ, Scope.SECRETS_READ},
    Role.DEVELOPER: _WORKS | {Scope.SECRETS_READ},
    Role.AGENT: _ASKS,
    Role.AUDITOR: _READS,
    Role.NODE: frozenset({Scope.NODE, Scope.BLOBS}),
    Role.JOIN: frozenset({Scope.NODE_JOIN}),
    Role.ENROL: frozenset({Scope.NODE_ENROL}),
}


class ScopeMissing(Permanent):
    """These credentials are good, but not for this."""

    code = "forbidden"
    http_status = 403

    def __init__(self, principal: Principal, scope: Scope) -> None:
        super().__init__(f"{principal.id!r} may not do this: {_why(principal, scope)}")
        self.scope = scope


def scopes_of(principal: Principal) -> frozenset[Scope]:
    """All that it may do: what its roles allow, narrowed by its credential's scopes."""
    allowed = frozenset().union(*(SCOPES_OF.get(role, frozenset()) for role in principal.roles))
    if principal.tenant != FLEET_TENANT:
        allowed -= FLEET_WIDE
    return allowed if principal.scopes is None else frozenset(one for one in allowed if one in principal.scopes)


def beyond(roles: Iterable[str], scopes: Iterable[str] | None) -> list[str]:
    """Those of `scopes` that none of these roles has: a credential with them could not do what it says."""
    has = frozenset[str]().union(*(SCOPES_OF.get(role, frozenset()) for role in roles))
    return sorted(set(scopes or ()) - has)


def allows(principal: Principal, scope: Scope) -> bool:
    """Whether it may."""
    if principal.scopes is not None and scope not in principal.scopes:
        return False
    if scope in FLEET_WIDE and principal.tenant != FLEET_TENANT:
        return False
    return any(scope in SCOPES_OF.get(role, ()) for role in principal.roles)


def require(principal: Principal, scope: Scope) -> None:
    """Raises ScopeMissing where it may not."""
    if not allows(principal, scope):
        raise ScopeMissing(principal, scope)


def _why(principal: Principal, scope: Scope) -> str:
    roles = sorted(role for role in GIVEN if scope in SCOPES_OF[role])
    if scope in FLEET_WIDE and principal.tenant != FLEET_TENANT:
        return f"{scope} is about the whole fleet, which tenant {FLEET_TENANT!r} runs, not {principal.tenant!r}"
    if principal.scopes is not None and scope not in principal.scopes:
        return f"its credential was not given the scope {scope}"
    has = ", ".join(sorted(principal.roles)) or "none"
    return f"it needs the scope {scope}, which comes with the role {' or '.join(roles) or 'of a node'}; it has {has}"
