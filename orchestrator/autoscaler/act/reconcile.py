"""What a cloud lists against what the claims say: orphans, machines found again, machines that vanished. Pure.

Lists lag behind orders, so one look proves nothing. A machine nobody claims is an orphan when two looks
in a row had it and it is two minutes old; a claimed one has vanished when three in a row had it not, and it
was ready once or is as old.
Knows only what the provider lists under our cluster tag, so it can name no other machine. Under a name that
the fleet had before, only machines of claims that are known: somebody else may have that name by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.autoscaler.act.looks import Look
from orchestrator.autoscaler.cloud.provider import Machine, Power
from orchestrator.autoscaler.values import ClaimState, NodeClaim

LAG_S = 120.0
"""For how long a list may not know what was ordered or ended."""
ORPHAN_LOOKS = 2
VANISHED_LOOKS = 3
assert LAG_S > 0 and ORPHAN_LOOKS > 1, "a lagging list would end machines that are wanted"  # noqa: PT018


@dataclass(frozen=True, slots=True)
class Seen:
    """How often in a row, and since when."""

    looks: int
    since: float


@dataclass(frozen=True, slots=True)
class Sightings:
    """What is remembered from look to look, of one provider.

    Attributes:
        strangers: machine id → for how long nobody has claimed it.
        absent: claim id → for how long its machine has not been listed.
    """

    strangers: Mapping[str, Seen] = field(default_factory=dict)
    absent: Mapping[str, Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Orphan:
    """To be ended. `why`: `unknown_claim`, `gone_claim`, `second_machine`."""

    machine: Machine
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one look.

    Attributes:
        orphans: machines that no claim accounts for.
        found: claims that did not know their machine, and the machine.
        vanished: claims whose machine is not there any more.
        never_made: claims that end, and of which there is no machine after all.
    """

    sightings: Sightings
    orphans: tuple[Orphan, ...] = ()
    found: tuple[tuple[str, Machine], ...] = ()
    vanished: tuple[str, ...] = ()
    never_made: tuple[str, ...] = ()


def compare(look: Look, claims: Iterable[NodeClaim], before: Sightings) -> Findings:
    """One look at one provider.

    Args:
        look: its list, and when it was asked for.
        claims: of every provider, as they were when the list was asked for or later. One that stands speaks for its
            machine whoever lists it: two tables of the pools file may name one account, and a table may be renamed.
        before: the sightings of the look before this one.
    """
    known = {claim.id: claim for claim in claims}
    ours = {key: claim for key, claim in known.items() if claim.rung.provider == look.provider}
    found = _found(look.machines, ours)
    strangers = {m.id: (m, why) for m in look.machines if (why := _stranger(m, known, found, look)) is not None}
    absent = [claim for claim in ours.values() if claim.id not in found and _is_absent(claim, look)]
    sightings = Sightings(
        _again(strangers, before.strangers, look.began_at),
        _again((claim.id for claim in absent), before.absent, look.began_at),
    )
    return Findings(
        sightings,
        orphans=tuple(
            Orphan(machine, why)
            for machine, why in strangers.values()
            if machine.power is not Power.ENDING and _is_orphan(machine, sightings.strangers[machine.id], look)
        ),
        found=tuple(found.items()),
        vanished=tuple(
            claim.id for claim in absent if claim.machine_id and sightings.absent[claim.id].looks >= VANISHED_LOOKS
        ),
        never_made=tuple(
            claim.id for claim in absent if not claim.machine_id and sightings.absent[claim.id].looks >= ORPHAN_LOOKS
        ),
    )


def _found(machines: Iterable[Machine], ours: Mapping[str, NodeClaim]) -> dict[str, Machine]:
    """Claims that do not know their machine → the oldest that names them."""
    found: dict[str, Machine] = {}
    for machine in sorted(machines, key=lambda machine: (machine.created_at, machine.id)):
        claim = ours.get(machine.claim)
        if claim is not None and claim.machine_id is None and claim.state is not ClaimState.GONE:
            found.setdefault(claim.id, machine)
    return found


def _stranger(machine: Machine, known: Mapping[str, NodeClaim], found: Mapping[str, Machine], look: Look) -> str | None:
    claim = known.get(machine.claim)
    if claim is None:
        return None if machine.id in look.former else "unknown_claim"
    if claim.state is ClaimState.GONE:
        return "gone_claim" if look.began_at - claim.state_at > LAG_S else None
    if claim.rung.provider != look.provider:
        return None
    theirs = claim.machine_id or (found[claim.id].id if claim.id in found else None)
    return None if machine.id == theirs else "second_machine"


def _is_absent(claim: NodeClaim, look: Look) -> bool:
    if claim.state is ClaimState.GONE:
        return False
    if claim.machine_id is None:  # being ordered, unless it ends
        return claim.state is ClaimState.TERMINATING and look.began_at - claim.state_at >= LAG_S
    # One that was ready has been listed: it needs no time to appear.
    is_settled = claim.ready_at is not None or look.began_at - claim.created_at >= LAG_S
    return claim.state is not ClaimState.TERMINATING and is_settled and look.find(claim.machine_id) is None


def _is_orphan(machine: Machine, seen: Seen, look: Look) -> bool:
    age_s = look.began_at - (machine.created_at or seen.since)
    return seen.looks >= ORPHAN_LOOKS and age_s > LAG_S


def _again(now: Iterable[str], before: Mapping[str, Seen], at: float) -> dict[str, Seen]:
    found = {}
    for key in now:
        earlier = before.get(key)
        found[key] = Seen(1, at) if earlier is None else Seen(earlier.looks + 1, earlier.since)
    return found
