"""Acts on what `reconcile.compare` finds: ends orphans, remembers machines again, gives up vanished ones.

Never ends a machine whose node is at work, whoever ordered it: that node is told to leave first.

A claim whose machine no list shows costs one question by the machine's id, and where that does not settle it
(the cloud knows the machine, or its node is there) further ones, each pause twice as long, from half a minute
to ten: ten calls in the first hour of each such claim and six in every later one, whatever the pace of looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from orchestrator.autoscaler.act.boot_pause import VANISHED
from orchestrator.autoscaler.act.exclusive import Exclusive
from orchestrator.autoscaler.act.looks import Look
from orchestrator.autoscaler.act.nodes import PRESENT, Nodes
from orchestrator.autoscaler.act.reconcile import Findings, Orphan, Sightings, compare
from orchestrator.autoscaler.act.steps import LEAVE_LIMIT_S, Steps
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine
from orchestrator.autoscaler.events import Leaked, Tell
from orchestrator.autoscaler.values import NodeClaim
from tasks.errors import FleetError
from tasks.node import NodeState

log = structlog.get_logger("mcpfleet.autoscaler")
SECOND = "second_machine"
NO_ANSWER = "its cloud did not answer in time"
ASK_AGAIN_S, ASK_AGAIN_MAX_S = 30.0, 600.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """For one machine by its id, that no list shows. `is_there`: its node was."""

    at: float
    pause_s: float
    is_there: bool


class Sweep:
    """One provider's look at a time."""

    def __init__(
        self,
        *,
        book: ClaimBook,
        clouds: Mapping[str, CloudProvider],
        nodes: Nodes,
        steps: Steps,
        exclusive: Exclusive,
        tell: Tell,
        leads: Callable[[], bool],
        answer_limit_s: float,
    ) -> None:
        """`answer_limit_s`: a cloud that has not answered by then is asked again at the next look."""
        self._book, self._clouds, self._nodes, self._steps = book, clouds, nodes, steps
        self._exclusive, self._tell, self._leads = exclusive, tell, leads
        self._answer_limit_s = answer_limit_s
        self._sightings: dict[str, Sightings] = {}
        self._counted: dict[str, set[str]] = {}
        self._asked: dict[str, dict[str, _Asked]] = {}
        """By provider and claim."""
        self.leaks: dict[str, list[str]] = {}
        """By provider: machines of the last look that nobody claims, in words."""
        self.unlisted: dict[str, str] = {}
        """Claim id → what is odd: its cloud does not list its machine, and its node is there."""

    async def apply(self, look: Look) -> None:
        """What this look shows."""
        findings = compare(look, self._book.all(), self._sightings.get(look.provider, Sightings()))
        self._sightings[look.provider] = findings.sightings
        for claim_id, machine in findings.found:
            await self._one(claim_id, partial(self._remember, machine=machine))
        self._forget_but(look.provider, findings.vanished)
        for claim_id in findings.vanished:
            await self._one(claim_id, partial(self._vanished, at=look.began_at))
        for claim_id in findings.never_made:
            await self._one(claim_id, self._steps.never_made)
        await self._end_orphans(look, findings)

    def _forget_but(self, provider: str, vanished: Collection[str]) -> None:
        """What this provider lists again, or is given up; what others do not list is not its business."""
        asked = self._asked.get(provider, {})
        for claim_id in asked.keys() - set(vanished):
            self.unlisted.pop(claim_id, None)
        self._asked[provider] = {key: asked[key] for key in vanished if key in asked}

    async def _one(self, claim_id: str, act: Callable[[NodeClaim], Awaitable[None]]) -> None:
        """Unless somebody works on it: then the next look finds it again."""
        with self._exclusive.hold(claim_id) as is_mine:
            claim = self._book.find(claim_id)
            if not is_mine or claim is None:
                return
            try:
                await act(claim)
            except (FleetError, TimeoutError) as error:
                log.warning("look_not_applied", claim=claim_id, error=str(error) or NO_ANSWER)

    async def _remember(self, claim: NodeClaim, machine: Machine) -> None:
        if claim.machine_id is None:
            log.info("machine_found_again", claim=claim.id, machine=machine.id)
            await self._book.note(claim.id, machine_id=machine.id, address=machine.address)

    async def _vanished(self, claim: NodeClaim, at: float) -> None:
        """Asked for by its id as well: a list may be wrong for longer than it should."""
        if claim.machine_id is None or claim.rung.provider not in self._clouds or not self._may_ask(claim, at):
            return
        async with asyncio.timeout(self._answer_limit_s):
            machine = await self._clouds[claim.rung.provider].machine(claim.machine_id)
        if machine is not None:
            self.unlisted.pop(claim.id, None)  # it said that it does not know it, and does
            return
        if self._nodes.state_of(claim.node) in PRESENT:
            self.unlisted[claim.id] = f"{claim.rung.provider} does not know {claim.node}, whose node is there"
            return
        await self._steps.fail(claim, VANISHED, f"its machine {claim.machine_id} is not there any more")

    def _may_ask(self, claim: NodeClaim, at: float) -> bool:
        """And it is asked now. At once where its node came or went since; a clock set back delays nothing."""
        asked, is_there = self._asked[claim.rung.provider], self._nodes.state_of(claim.node) in PRESENT
        before, pause_s = asked.get(claim.id), ASK_AGAIN_S
        if before is not None and before.is_there == is_there:
            if 0.0 <= at - before.at < before.pause_s:
                return False
            pause_s = min(ASK_AGAIN_MAX_S, before.pause_s * 2.0)
        asked[claim.id] = _Asked(at, pause_s, is_there)
        return True

    async def _end_orphans(self, look: Look, findings: Findings) -> None:
        self.leaks[look.provider] = [f"{o.machine.name} ({o.machine.id}): {o.why}" for o in findings.orphans]
        counted = self._counted.setdefault(look.provider, set())
        counted &= {machine.id for machine in look.machines}
        for orphan in findings.orphans:
            if orphan.machine.id not in counted:
                counted.add(orphan.machine.id)
                log.warning("machine_leaked", provider=look.provider, machine=orphan.machine.id, why=orphan.why)
                self._tell(Leaked(look.provider, orphan.machine.id, orphan.why))
            seen = findings.sightings.strangers[orphan.machine.id]
            await self._end(look.provider, orphan, for_s=look.began_at - seen.since)

    async def _end(self, provider: str, orphan: Orphan, *, for_s: float) -> None:
        try:
            if await self._is_at_work(orphan, for_s) or not self._leads():
                return
            async with asyncio.timeout(self._answer_limit_s):
                await self._clouds[provider].terminate(orphan.machine.id)
        except (FleetError, TimeoutError) as error:
            why = str(error) or NO_ANSWER
            log.warning("orphan_not_ended", provider=provider, machine=orphan.machine.id, error=why)

    async def _is_at_work(self, orphan: Orphan, for_s: float) -> bool:
        name = orphan.machine.name
        if self._nodes.state_of(name) not in PRESENT:
            return False
        if orphan.why == SECOND:  # its twin has the same name: which of them is the node is not known
            return self._nodes.held(name) > 0
        if self._nodes.state_of(name) is not NodeState.DRAINING:
            await self._nodes.wish(name, NodeState.DRAINING)
        return self._nodes.held(name) > 0 or for_s < LEAVE_LIMIT_S
