"""Policies by Cedar: read strictly, and an error is a no."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from orchestrator.policy import facts
from orchestrator.policy.cedar import Rules
from orchestrator.policy.question import Who
from orchestrator.policy.zones import LOCAL, NETWORK, OUTSIDE, Zones
from orchestrator.presented import Presented
from tasks.errors import SettingsError
from tasks.invocation import Lane
from tasks.tool import ToolSpec

ANN = Who("ann", "default", frozenset({"agent"}), frozenset({"ml"}), 50)
ALL = '@id("all") permit (principal, action, resource);'


def spec(name: str = "git.status", **hints: bool) -> ToolSpec:
    """A tool."""
    server, _, tool = name.partition(".")
    return ToolSpec(server=server, definition={"name": tool, "annotations": hints})


def rules(*texts: str) -> Rules:
    """In files of their own."""
    return Rules({f"{number}.cedar": text for number, text in enumerate(texts)})


def test_without_a_permit_nothing_is_allowed() -> None:
    """And the answer says so."""
    decision = rules("").decide(facts.may_call(ANN, spec(), None, Lane.TOOLS))
    assert (decision.is_allowed, decision.why()) == (False, "no policy permits it")


def test_a_forbid_wins_and_is_named() -> None:
    """Whatever else permits it."""
    wall = '@id("wall") forbid (principal, action == Action::"call", resource) when { context.project == "secret" };'
    guard = wall.replace("when {", "when { context has project &&")
    both = rules(ALL, guard)
    assert both.decide(facts.may_call(ANN, spec(), "shop", Lane.TOOLS)).rules == ("all",)
    refused = both.decide(facts.may_call(ANN, spec(), "secret", Lane.TOOLS))
    assert (refused.is_allowed, refused.rules) == (False, ("wall",))


def test_a_policy_that_cannot_be_evaluated_is_a_no() -> None:
    """The engine passes by a forbid that fails, and would say yes."""
    fails = (
        '@id("fails") forbid (principal, action == Action::"use", resource)'
        " when { 9223372036854775807 + context.trust > 0 };"
    )
    decision = rules(ALL, fails).decide(facts.may_use(ANN, Place(), None))
    assert decision.rules == ("all",)
    assert not decision.is_allowed
    assert "fails" in decision.why() or "overflow" in decision.why()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("permit (principal, action, resource);", "lacks its id"),
        (ALL + ALL, "two policies have the id 'all'"),
        ('@id("x") permit (principal, action, resource', "parse error"),
        ('@id("x") permit (principal, action, resource is Tool) when { resource.nope };', "`nope`"),
        ('@id("x") permit (principal, action == Action::"destroy", resource);', "destroy"),
        ('@id("x") permit (principal, action == Action::"call", resource) when { context.project == "a" };', "project"),
    ],
)
def test_a_wrong_policy_is_refused_when_it_is_read(text: str, says: str) -> None:
    """Not when it decides. An attribute that may be absent must be asked for with `has`."""
    with pytest.raises(SettingsError, match=says):
        rules(text)


def test_a_name_in_another_tenant_is_another_principal() -> None:
    """Ids and groups belong to a tenant."""
    mine = rules(
        '@id("a") permit (principal == Principal::"default/ann", action, resource);',
        '@id("g") permit (principal in Group::"acme/ml", action == Action::"see", resource);',
    )
    see, call = facts.may_see(ANN, spec()), facts.may_call(ANN, spec(), None, Lane.TOOLS)
    acme = replace(ANN, tenant="acme")
    assert (mine.decide(see).rules, mine.decide(call).rules) == (("a",), ("a",))
    assert mine.decide(replace(see, who=acme)).rules == ("g",)
    assert not mine.decide(replace(call, who=acme)).is_allowed


@pytest.mark.parametrize("name", ['a"b', "a\\", "a\nb", "é", "a::b", '"), permit(principal,action,resource);//'])
def test_no_name_escapes_its_quotes(name: str) -> None:
    """Entities are values, never text of a policy."""
    only = rules('@id("ann") permit (principal == Principal::"default/ann", action, resource);')
    odd = replace(ANN, id=name, groups=frozenset({name}), roles=frozenset({name}))
    assert not only.decide(facts.may_see(odd, spec())).is_allowed


@pytest.mark.parametrize(
    ("hints", "read_only", "destructive"),
    [
        ({}, False, True),
        ({"readOnlyHint": True}, True, False),
        ({"readOnlyHint": True, "destructiveHint": True}, True, False),
        ({"destructiveHint": False}, False, False),
        ({"readOnlyHint": "true"}, False, True),
    ],
)
def test_what_a_tool_does_not_say_is_taken_for_the_worse(
    hints: dict[str, bool], read_only: bool, destructive: bool
) -> None:
    """As the MCP specification's defaults have it."""
    said = dict(facts.tool(spec(**hints)).attributes)
    assert (said["readOnly"], said["destructive"]) == (read_only, destructive)


class Place:
    """A node."""

    node, pool, location, capabilities = "n1", "private", "fsn1", frozenset({"gpu"})


def test_nodes_are_asked_about_with_their_pool_and_place() -> None:
    """Private, clustered, or where data may be."""
    only = rules(
        '@id("gpu") permit (principal, action == Action::"use", resource in Pool::"private")'
        ' when { resource.capabilities.contains("gpu") && resource.location like "fsn*" };'
    )
    assert only.decide(facts.may_use(ANN, Place(), "shop")).rules == ("gpu",)
    elsewhere = type("Elsewhere", (Place,), {"location": "ash"})()
    assert not only.decide(facts.may_use(ANN, elsewhere, None)).is_allowed


@pytest.mark.parametrize(
    ("peer", "trust"),
    [
        ("127.0.0.1", LOCAL),
        ("::1", LOCAL),
        ("::ffff:127.0.0.1", LOCAL),
        ("10.1.2.3", NETWORK),
        ("::ffff:10.1.2.3", NETWORK),
        ("192.0.2.1", OUTSIDE),
        (None, OUTSIDE),
        ("localhost", OUTSIDE),
    ],
)
def test_trust_is_the_connections_address_and_nothing_else(peer: str | None, trust: int) -> None:
    """Not a header, not a name."""
    zones = Zones((ip_network("10.0.0.0/8"),))
    assert zones.trust(Presented("t", peer)) == trust


def test_behind_a_proxy_on_this_machine_loopback_is_outside() -> None:
    """Everybody comes from there."""
    assert Zones(is_loopback_local=False).trust(Presented("t", "127.0.0.1")) == OUTSIDE
