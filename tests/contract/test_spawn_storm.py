"""What one call's run may cause: calls name their parent, and a tree of them is bounded in depth and in number."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.intake.check import Intake, Limits
from orchestrator.ledger.ledger import Ledger
from orchestrator.testing.blobs import MemoryBlobs
from tasks.errors import FleetError, NotFound, ReservedProject, SpawnLimit
from tasks.invocation import Call, Invocation, Principal
from tasks.outcome import Outcome
from tasks.scopes import Role
from tasks.secretref import TENANT_ITSELF
from tasks.testing.clock import FakeClock
from tasks.tool import ToolSpec

ANN = Principal("ann", "acme", frozenset({Role.DEVELOPER}))
SPEC = ToolSpec(server="a", definition={"name": "run", "inputSchema": {"type": "object"}})


class _Tools:
    """A fleet with one tool."""

    tools_version = 1

    def tool(self, name: str) -> ToolSpec | None:
        return SPEC

    def tools(self) -> dict[str, ToolSpec]:
        return {"a.run": SPEC}

    def capabilities(self) -> set[str]:
        return set()

    def pools(self) -> set[str]:
        return set()


class Door:
    """Checked and written, as a caller's calls are."""

    def __init__(self, ledger: Ledger, clock: FakeClock) -> None:
        self.ledger = ledger
        self.intake = Intake(
            fleet=_Tools(),
            blobs=MemoryBlobs(),
            books=ledger,
            limits=Limits(1000, 1000, 1000, spawn_depth=2, spawn_descendants=3),
            clock=clock,
            waiting=lambda: 0,
            has_pool=lambda _: True,
        )

    async def call(self, parent: Invocation | None = None, *, principal: Principal = ANN, **more: object) -> Invocation:
        """One, as it stands in the ledger."""
        call = Call(tool="a.run", parent=None if parent is None else parent.id, **more)  # type: ignore[arg-type]
        row = await self.intake.admit(call, principal)
        [accepted] = await self.ledger.accept([row])
        return await self.ledger.get(accepted.invocation_id, principal.tenant)


@pytest.fixture
def door(ledger: Ledger, clock: FakeClock) -> Door:
    """To a real ledger."""
    return Door(ledger, clock)


async def test_a_call_knows_its_parent_and_what_all_began_with(door: Door) -> None:
    """Also when it is read again."""
    first = await door.call()
    second = await door.call(first)
    third = await door.call(second)
    assert (first.call.parent, first.root, first.depth) == (None, None, 0)
    assert (second.call.parent, second.root, second.depth) == (first.id, first.id, 1)
    assert (third.call.parent, third.root, third.depth) == (second.id, first.id, 2)


async def test_a_chain_of_parents_has_an_end(door: Door) -> None:
    """A run that calls a run that calls a run is refused at the limit, and told which setting it is."""
    third = await door.call(await door.call(await door.call()))
    with pytest.raises(SpawnLimit, match="MCPFLEET_SPAWN_DEPTH"):
        await door.call(third)


async def test_one_call_leads_to_so_many_others_and_no_more(door: Door) -> None:
    """Counted over all of the tree; others are not touched by it."""
    first, other = await door.call(), await door.call()
    second = await door.call(first)
    await door.call(first)
    await door.call(second)
    for parent in (first, second):
        with pytest.raises(SpawnLimit, match="MCPFLEET_SPAWN_DESCENDANTS"):
            await door.call(parent)
    assert (await door.call(other)).root == other.id


async def test_calls_at_once_do_not_slip_through(door: Door) -> None:
    """Ten come at the same moment: as many are taken as may be."""
    first = await door.call()
    told = await asyncio.gather(*(door.call(first) for _ in range(10)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in told) == ["Invocation"] * 3 + ["SpawnLimit"] * 7


async def test_a_batch_over_the_limit_is_refused_whole(door: Door) -> None:
    """And leaves no row behind."""
    first = await door.call()
    rows = [await door.intake.admit(Call(tool="a.run", parent=first.id), ANN) for _ in range(4)]
    with pytest.raises(SpawnLimit):
        await door.ledger.accept(rows)
    for row in rows:
        with pytest.raises(NotFound):
            await door.ledger.get(row.invocation.id)
    assert await door.call(first)


async def test_a_repeated_call_stands_though_the_limit_is_reached(door: Door) -> None:
    """Whoever did not hear the answer asks again with the same key, and gets what was accepted."""
    first = await door.call()
    made = [await door.call(first, idempotency_key=f"k-{number}") for number in range(3)]
    assert (await door.call(first, idempotency_key="k-1")).id == made[1].id


async def test_a_parent_of_another_tenant_is_unknown(door: Door) -> None:
    """As every Invocation of another tenant's is."""
    first = await door.call()
    with pytest.raises(NotFound):
        await door.call(first, principal=Principal("bob", "other"))


async def test_a_later_call_of_a_chain_counts_and_is_not_refused(door: Door) -> None:
    """It belongs to the same parent; a settlement never fails for it."""
    first = await door.call()
    made = await door.call(first, then=(Call(tool="a.run"),))
    [row] = await door.intake.successors(made, Outcome("succeeded", result_json="{}"))
    assert (row.invocation.call.parent, row.invocation.root, row.invocation.depth) == (first.id, first.id, 1)
    assert row.descendants_max is None
    await door.ledger.accept([replace(row)])
    await door.call(first)
    with pytest.raises(FleetError):
        await door.call(first)


async def test_no_call_is_in_a_project_that_is_named_as_the_tenant_itself(door: Door) -> None:
    """Nor a later one of a chain: what is owned by that name is the tenant's, and is not erased with a project."""
    for more in ({"project": TENANT_ITSELF}, {"then": (Call(tool="a.run", project=TENANT_ITSELF),)}):
        with pytest.raises(ReservedProject, match="use another name"):
            await door.call(**more)
    assert (await door.call(project="tenants")).call.project == "tenants"
