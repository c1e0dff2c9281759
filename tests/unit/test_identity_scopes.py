"""Roles, scopes and tenants: who may do what, as one table."""

from __future__ import annotations

import pytest

from tasks.invocation import Principal
from tasks.scopes import FLEET_WIDE, GIVEN, SCOPES_OF, Role, Scope, ScopeMissing, allows, require, scopes_of


def who(*roles: str, tenant: str = "default", scopes: frozenset[str] | None = None) -> Principal:
    """Somebody."""
    return Principal("ann", tenant, frozenset(roles), scopes)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (Role.ADMIN, Scope.KEYS_WRITE, Scope.NODE),
        (Role.OPERATOR, Scope.FLEET_WRITE, Scope.KEYS_WRITE),
        (Role.DEVELOPER, Scope.APPROVALS_WRITE, Scope.FLEET_WRITE),
        (Role.AGENT, Scope.INVOCATIONS_WRITE, Scope.APPROVALS_WRITE),
        (Role.AUDITOR, Scope.AUDIT_READ, Scope.INVOCATIONS_WRITE),
        (Role.NODE, Scope.BLOBS, Scope.INVOCATIONS_READ),
        (Role.JOIN, Scope.NODE_JOIN, Scope.NODE),
        (Role.ENROL, Scope.NODE_ENROL, Scope.NODE_JOIN),
    ],
)
def test_a_role_is_its_scopes_and_no_more(role: Role, may: Scope, may_not: Scope) -> None:
    """An agent answers no approvals, a node calls no tools, an auditor changes nothing."""
    assert allows(who(role), may)
    assert not allows(who(role), may_not)


def test_no_role_that_people_give_is_a_nodes() -> None:
    """A key cannot join, renew or enrol for a node."""
    of_nodes = {Scope.NODE, Scope.NODE_JOIN, Scope.NODE_ENROL}
    assert not {role for role in GIVEN if SCOPES_OF[role] & of_nodes}


def test_an_auditor_only_reads() -> None:
    """Whatever scopes come later."""
    assert all(scope.endswith(":read") for scope in SCOPES_OF[Role.AUDITOR])


def test_another_tenants_admin_does_not_run_the_fleet() -> None:
    """What all tenants share belongs to the fleet's own tenant."""
    assert scopes_of(who(Role.ADMIN)) - scopes_of(who(Role.ADMIN, tenant="acme")) == FLEET_WIDE
    with pytest.raises(ScopeMissing, match="'default' runs, not 'acme'"):
        require(who(Role.ADMIN, tenant="acme"), Scope.FLEET_WRITE)


def test_a_credential_narrows_and_never_widens() -> None:
    """Scopes of a key or token are an intersection with the roles'."""
    narrowed = who(Role.AGENT, scopes=frozenset({Scope.TOOLS_READ, Scope.KEYS_WRITE}))
    assert scopes_of(narrowed) == {Scope.TOOLS_READ}
    with pytest.raises(ScopeMissing, match="was not given the scope invocations:write"):
        require(narrowed, Scope.INVOCATIONS_WRITE)
    assert not allows(narrowed, Scope.KEYS_WRITE)


@pytest.mark.parametrize("roles", [(), ("client",), ("Admin",), ("admin ",)])
def test_an_unknown_role_allows_nothing(roles: tuple[str, ...]) -> None:
    """No role is guessed."""
    assert scopes_of(who(*roles)) == frozenset()


def test_the_question_and_the_list_agree() -> None:
    """Two ways to ask, one answer."""
    for role in Role:
        for tenant in ("default", "acme"):
            for scopes in (None, frozenset({Scope.TOOLS_READ}), frozenset[str]()):
                one = who(role, tenant=tenant, scopes=scopes)
                assert {scope for scope in Scope if allows(one, scope)} == scopes_of(one)
