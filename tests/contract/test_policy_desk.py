"""Policies at work: at the door, in lists, in placement, and when the folder changes. Real ledger, real Cedar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.assembly import fleet_of, views_of
from orchestrator.fleet import Fleet
from orchestrator.gates import policy_views
from orchestrator.ledger.values import Filter
from orchestrator.policy.desk import DAY_S, PolicyDenied, TooManyAtOnce
from orchestrator.policy.limits import QuotaSpent, RateLimited
from orchestrator.refused_calls import RefusedCalls
from orchestrator.testing.protocol import Story
from tasks.errors import NotFound, SettingsError, UnknownTool
from tasks.invocation import Call, Lane, Principal
from tasks.node import NodeState
from tasks.outcome import Outcome
from tasks.scopes import Role, ScopeMissing
from tasks.testing.clock import FakeClock

ANN = Principal("ann", "acme", frozenset({Role.DEVELOPER}), groups=frozenset({"ml"}))
BOB = Principal("bob", "acme", frozenset({Role.AGENT}))
CALLS = '@id("calls") permit (principal, action in [Action::"call", Action::"see"], resource);\n'
USES = '@id("uses") permit (principal, action == Action::"use", resource);\n'
NO_WRITES = '@id("no-writes") forbid (principal, action, resource is Tool) when { !resource.readOnly };\n'
PRIVATE = (
    '@id("private") forbid (principal, action == Action::"use", resource in Pool::"private")'
    ' unless { principal in Group::"acme/ml" };\n'
)


class Scene:
    """A fleet, and its folder of policies."""

    def __init__(self, folder: Path, story: Story) -> None:
        self.folder, self.story = folder, story
        self.fleet: Fleet = fleet_of(story.core, views_of(story.core))

    def write(self, cedar: str, limits: str = "") -> None:
        """Other policies."""
        (self.folder / "p.cedar").write_text(cedar)
        (self.folder / "limits.toml").write_text(limits)

    async def changed(self, cedar: str, limits: str = "") -> None:
        """Other policies, and the loop has looked."""
        self.write(cedar, limits)
        await self.story.core.policy.refresh()

    async def call(self, by: Principal, tool: str = "files.read", **more: object) -> str:
        """A call's id."""
        [accepted] = await self.fleet.accept([Call(tool, **more)], by)  # type: ignore[arg-type]
        return accepted.id


@pytest.fixture
async def scene(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Scene]:
    """Everything permitted, one open node."""
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "p.cedar").write_text(CALLS + USES)
    story = await Story.begin(tmp_path, clock, policy_dir=folder)
    await story.join("n1", slots=9)
    yield Scene(folder, story)
    await story.end()


async def test_a_refused_call_is_not_accepted_and_says_which_policy(scene: Scene) -> None:
    """Nor one of a chain, nor a batch with one such call in it; and it is not in the list."""
    await scene.changed(CALLS + USES + NO_WRITES)
    assert await scene.call(ANN)
    assert [tool.name for tool in scene.fleet.tools(ANN)] == ["files.read"]
    for calls in (
        [Call("files.write")],
        [Call("files.read"), Call("files.write")],
        [Call("files.read", then=(Call("files.write"),))],
    ):
        with pytest.raises(PolicyDenied, match="no-writes"):
            await scene.fleet.accept(calls, ANN)
    found, _ = await scene.story.core.stores.ledger.listing(Filter(tenant="acme"), cursor=None, limit=10)
    assert len(found) == 1


async def test_lists_change_with_the_policies(scene: Scene) -> None:
    """Clients that keep a list hear of it by its version."""
    before = scene.fleet.tools_version
    await scene.changed(CALLS + USES + NO_WRITES)
    assert scene.fleet.tools_version != before
    await scene.changed(CALLS + USES + NO_WRITES)
    assert scene.fleet.tools_version == before + 1


async def test_a_private_pool_runs_its_groups_calls_only(scene: Scene) -> None:
    """Somebody else's wait, with the reason; and go when the policy lets them."""
    await scene.story.core.desk.set_state("n1", NodeState.CORDONED)
    await scene.changed(CALLS + USES + PRIVATE)
    await scene.story.join("n2", pool="private", slots=9)
    hers, his = await scene.call(ANN), await scene.call(BOB)
    assert [one.invocation for one in await scene.story.release()] == [hers]
    why = " ".join(scene.story.core.dispatcher.why(his))
    assert "n2" not in why or "policy private" in why
    assert [one.invocation for one in await scene.story.release()] == []
    await scene.changed(CALLS + USES)
    assert [one.invocation for one in await scene.story.release()] == [his]


RESIDENCY = (
    '@id("acme-in-eu") forbid (principal in Tenant::"acme", action == Action::"use", resource)'
    ' unless { resource.location like "eu-*" };\n'
)


async def test_a_tenants_data_stays_where_it_may_be(scene: Scene) -> None:
    """Placed in its region however full that is, and never elsewhere; other tenants' calls go anywhere."""
    await scene.story.core.desk.set_state("n1", NodeState.CORDONED)
    await scene.changed(CALLS + USES + RESIDENCY)
    await scene.story.join("us", slots=9, location="us-1")
    hers, ours = await scene.call(ANN), await scene.call(Principal("op", roles=frozenset({Role.DEVELOPER})))
    assert [one.invocation for one in await scene.story.release()] == [ours]
    assert "acme-in-eu" in " ".join(scene.story.core.dispatcher.why(hers))
    await scene.story.join("eu", slots=1, location="eu-1")
    [delivery] = await scene.story.release()
    assert (delivery.invocation, delivery.node) == (hers, "eu")


async def test_a_new_leader_bars_what_waits_too(scene: Scene, tmp_path: Path, clock: FakeClock) -> None:
    """Who called is in the ledger, roles and groups with it."""
    await scene.story.core.desk.set_state("n1", NodeState.CORDONED)
    his, hers = await scene.call(BOB), await scene.call(ANN)
    scene.write(CALLS + USES + PRIVATE)
    await scene.story.end()
    again = await Story.begin(tmp_path, clock, policy_dir=scene.folder)
    await again.join("n2", pool="private", slots=9)
    assert [one.invocation for one in await again.release()] == [hers]
    assert his != hers
    await again.end()


async def test_a_broken_folder_leaves_what_was_in_force(scene: Scene) -> None:
    """And it is seen; a start on it is refused."""
    await scene.changed(CALLS + USES + NO_WRITES)
    await scene.changed("permit (nonsense")
    views = policy_views(scene.story.core)
    assert "p.cedar" in str(views.show().problem)
    with pytest.raises(PolicyDenied):
        await scene.call(ANN, "files.write")
    with pytest.raises(SettingsError, match=r"p\.cedar"):
        await Story.begin(scene.folder.parent, FakeClock(), policy_dir=scene.folder)
    await scene.changed(CALLS + USES)
    assert views.show().problem is None


async def test_explaining_does_nothing_and_says_why(scene: Scene) -> None:
    """For a tool and for a node; unknown ones are named."""
    await scene.changed(CALLS + USES + NO_WRITES)
    views = policy_views(scene.story.core)
    assert views.explain(ANN, "call", "files.write", None).rules == ("no-writes",)
    assert views.explain(ANN, "use", "n1", None).rules == ("uses",)
    with pytest.raises(UnknownTool):
        views.explain(ANN, "call", "files.rite", None)
    with pytest.raises(NotFound):
        views.explain(ANN, "use", "n9", None)


async def test_rates_hold_for_a_client(scene: Scene, clock: FakeClock) -> None:
    """And for nobody else; later it is let in again."""
    await scene.changed(CALLS + USES, '[[rate]]\nname = "r"\nper = "principal"\ncalls_per_s = 1\nburst = 2\n')
    for _ in range(2):
        await scene.call(ANN)
    with pytest.raises(RateLimited):
        await scene.call(ANN)
    assert await scene.call(BOB)
    clock.advance(1.0)
    assert await scene.call(ANN)


async def test_quotas_count_from_the_ledger(scene: Scene, clock: FakeClock, tmp_path: Path) -> None:
    """A new leader goes on where the old one was; the next day begins anew."""
    limits = '[[quota]]\nname = "q"\ntenant = "acme"\ncalls_per_day = 3\n'
    await scene.changed(CALLS + USES, limits)
    for _ in range(2):
        await scene.call(ANN)
    await scene.story.end()
    again = Scene(scene.folder, await Story.begin(tmp_path, clock, policy_dir=scene.folder))
    await again.story.join("n1")
    await again.call(BOB)
    with pytest.raises(QuotaSpent, match="3 of 3 calls a day"):
        await again.call(BOB)
    clock.advance(DAY_S)
    assert await again.call(BOB)
    await again.story.end()


async def test_a_quota_of_runs_is_free_again_when_one_ends(scene: Scene) -> None:
    """Runs of agents that wait or run; other calls are not counted."""
    limits = '[[quota]]\nname = "q"\ntenant = "acme"\nproject = "shop"\nruns = 1\n'
    await scene.changed(CALLS + USES, limits)
    first = await scene.call(ANN, project="shop", lane=Lane.AGENTS)
    with pytest.raises(QuotaSpent, match="runs of agents"):
        await scene.call(ANN, project="shop", lane=Lane.AGENTS)
    assert await scene.call(ANN, project="shop")
    assert await scene.call(ANN, project="other", lane=Lane.AGENTS)
    delivery = next(one for one in await scene.story.release() if one.invocation == first)
    await scene.story.finish("n1", delivery, Outcome("succeeded", "{}"))
    await scene.story.core.policy.refresh()
    assert await scene.call(ANN, project="shop", lane=Lane.AGENTS)


async def test_a_later_call_is_judged_where_it_will_run(scene: Scene) -> None:
    """In the project that it inherits, through a chain of any length."""
    wall = (
        '@id("wall") forbid (principal, action == Action::"call", resource == Tool::"files.write")'
        ' when { context has project && context.project == "prod" };\n'
    )
    await scene.changed(CALLS + USES + wall)
    write = Call("files.write")
    for chain in ((write,), (Call("files.read"), write), (Call("files.read", project="prod"), write)):
        with pytest.raises(PolicyDenied, match="wall"):
            await scene.call(ANN, project="prod", then=chain)
    assert await scene.call(ANN, project="prod", then=(Call("files.read", project="dev"), write))


async def test_a_request_of_too_many_questions_is_refused(scene: Scene) -> None:
    """Before they are asked; the same question a thousand times is one."""
    many = [Call("files.read", project=f"p{number}") for number in range(1001)]
    with pytest.raises(TooManyAtOnce):
        await scene.fleet.accept(many, ANN)
    assert len(await scene.fleet.accept([Call("files.read", project="one")] * 20, ANN)) == 20


async def test_those_who_ask_at_once_share_one_quota(scene: Scene) -> None:
    """What was let through counts before it is durable."""
    await scene.changed(CALLS + USES, '[[quota]]\nname = "q"\ntenant = "acme"\nruns = 2\n')
    ends = await asyncio.gather(
        *(scene.call(ANN, project=f"p{number}", lane=Lane.AGENTS) for number in range(9)), return_exceptions=True
    )
    assert sum(isinstance(end, str) for end in ends) == 2


async def test_what_waits_is_judged_by_the_policies_of_now(scene: Scene) -> None:
    """A tool that was forbidden since is not run; allowed again, it goes."""
    await scene.story.core.desk.set_state("n1", NodeState.CORDONED)
    waits = await scene.call(ANN, "files.write")
    await scene.changed(CALLS + USES + NO_WRITES)
    await scene.story.core.desk.set_state("n1", NodeState.ACTIVE)
    assert await scene.story.release() == []
    assert "no-writes" in " ".join(scene.story.core.dispatcher.why(waits))
    await scene.changed(CALLS + USES)
    assert [one.invocation for one in await scene.story.release()] == [waits]


async def test_what_is_refused_over_mcp_is_in_the_audit_log_and_a_flood_of_it_is_one_row(scene: Scene) -> None:
    """By policy, for want of a scope, by a rate; not what the caller wrote wrongly, and no arguments."""
    await scene.changed(
        CALLS + USES + NO_WRITES,
        '[[rate]]\nname = "r"\nper = "principal"\ncalls_per_s = 1\nburst = 1\nroles = ["agent"]\n',
    )
    core = scene.story.core
    door = RefusedCalls(scene.fleet, core.audit)
    reader = Principal("rita", "acme", frozenset({Role.AUDITOR}), credential="key k1")
    for _ in range(3):
        with pytest.raises(PolicyDenied):
            await door.accept([Call("files.write", '{"x": "s3cr3t"}')], ANN)
    with pytest.raises(ScopeMissing):
        await door.accept([Call("files.read")], reader)
    with pytest.raises(ScopeMissing):
        await door.cancel("c1", reader)
    with pytest.raises(UnknownTool):
        await door.accept([Call("no.such")], BOB)
    await door.accept([Call("files.read")], BOB)
    with pytest.raises(RateLimited):
        await door.accept([Call("files.read")], BOB)
    rows = [row for row in await core.stores.ledger.audit.after(0, 100) if row.decision == "refused"]
    assert [(row.actor, row.tenant, row.action, row.target, json.loads(row.details_json)) for row in rows] == [
        ("ann", "acme", "call", "files.write", {"code": "policy_denied", "door": "mcp"}),
        ("rita", "acme", "call", "files.read", {"code": "forbidden", "door": "mcp"}),
        ("rita", "acme", "cancel", "c1", {"code": "forbidden", "door": "mcp"}),
        ("bob", "acme", "call", "files.read", {"code": "rate_limited", "door": "mcp"}),
    ]
    assert "no-writes" in rows[0].reason
    assert rows[1].credential == "key k1"
    assert "s3cr3t" not in repr(rows)


async def test_who_cancels_what_somebody_else_called_is_in_the_audit_log(scene: Scene) -> None:
    """Over MCP too; of one's own calls there is no row, for the ledger has those."""
    await scene.changed(CALLS + USES)
    core = scene.story.core
    door = RefusedCalls(scene.fleet, core.audit)
    (own,) = await door.accept([Call("files.read")], BOB)
    (other,) = await door.accept([Call("files.read")], BOB)
    await door.cancel(own.id, BOB)
    await door.cancel(other.id, ANN)
    rows = [row for row in await core.stores.ledger.audit.after(0, 100) if row.action == "cancel"]
    assert [(row.actor, row.target, row.decision) for row in rows] == [("ann", other.id, "allowed")]
