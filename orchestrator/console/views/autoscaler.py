"""The autoscaler: per pool how many machines there are, may be and are wanted, and why; the word of a person on it.

Money is euros. What a pool's page shows of the past is the log of decisions, a page at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.durations import took
from orchestrator.console.inside import Query, Refused
from orchestrator.console.links import INVALID, duration_s, link
from orchestrator.console.page import Act, Done, Page, Question, Visit
from orchestrator.console.words import plural, utc
from tasks.errors import NotFound
from tasks.scale_wire import MachineView, OverrideView, ScaleLogView, ScalePoolView, ScaleView
from tasks.scopes import Scope
from tasks.wire import Page as Listing

HERE = "/autoscaler"
LOG_ROWS = 200
"""Of the log at once; moments that decided the same are shown as one."""
MACHINES = 200
"""Rows of the page; what is gone comes last and is cut first."""
GONE = "gone"
DIGITS_MAX = 5


@dataclass(frozen=True, slots=True)
class Range:
    """A pool's machines on the scale of its policy, in percent of it: what a bar is drawn from."""

    now: int
    wanted: int | None
    low: int
    high: int

    @property
    def top(self) -> int:
        """The end of the scale."""
        return max(self.high, self.now, self.wanted or 0, 1)

    def at(self, machines: int) -> float:
        """Where on the scale."""
        return round(100 * machines / self.top, 2)


async def load(visit: Visit) -> Mapping[str, Any]:
    """Pools, machines, money."""
    scale = await visit.api.get("/v1/scale", ScaleView)
    machines = (await visit.api.get("/v1/scale/claims", Listing[MachineView])).items
    ordered = sorted(machines, key=lambda one: (one.standing == GONE, -one.created_at))
    return {
        "scale": scale,
        "pools": [(pool, _range(pool)) for pool in scale.pools],
        "machines": ordered[:MACHINES],
        "hidden": max(0, len(ordered) - MACHINES),
        "may_steer": visit.may(Scope.FLEET_WRITE),
        "unpriced": sum(pool.unpriced for pool in scale.pools),
        "total": sum(sum(pool.machines.values()) for pool in scale.pools),
    }


async def load_pool(visit: Visit) -> Mapping[str, Any]:
    """One pool: what it is, and its decisions, newest first."""
    pool = await _pool(visit)
    until = visit.said("until")
    query: Query = {"pool": pool.pool, "limit": LOG_ROWS, "until": until}
    entries = (await visit.api.get("/v1/scale/log", Listing[ScaleLogView], query)).items[::-1]
    oldest = entries[-1].decision.at if len(entries) == LOG_ROWS else None
    here = f"{HERE}/{pool.pool}"
    return {
        "pool": pool,
        "range": _range(pool),
        "entries": _told(entries),
        "older": "" if oldest is None else link(here, until=f"{oldest - 0.001:.3f}"),
        "newest": link(here) if until else "",
        "may_steer": visit.may(Scope.FLEET_WRITE),
    }


async def ask_hold(visit: Visit) -> Question:
    """Before a pool's size is set by hand."""
    pool = await _pool(visit)
    wanted = "nothing was decided yet" if pool.target is None else f"its policy wants {pool.target}"
    there = f"Pool {pool.pool} has {plural(_there(pool), 'machine')} now; {wanted}."
    sentences = [
        f"{there} Its policy allows {pool.min_machines} to {pool.max_machines}.",
        "Until the hold ends the policy does not decide. Limits of machines and of money hold all the same.",
    ]
    fields = (("target", "Machines", DIGITS_MAX), ("for", "For how long: 30m, 2h, 1d", 12))
    return Question(f"Hold pool {pool.pool} at a size?", sentences, "Hold", f"{HERE}/{pool.pool}", fields=fields)


async def hold(visit: Visit) -> Done:
    """Say it to the autoscaler."""
    pool, target = visit.path["pool"], visit.form.get("target", "").strip()
    if not (target.isascii() and target.isdecimal() and len(target) <= DIGITS_MAX):
        raise Refused(INVALID, "bad_input", f"{target[:20]!r} is no number of machines: write 0, 3 or 12")
    body = {"pool": pool, "target": int(target), "for_s": duration_s(visit.form.get("for", ""))}
    view = OverrideView.model_validate_json((await visit.api.ask("PUT", "/v1/scale/override", body=body)).body)
    return Done(f"Pool {pool} is held at {plural(view.target, 'machine')} until {utc(view.until)}.", f"{HERE}/{pool}")


async def ask_lift(visit: Visit) -> Question:
    """Before the policy decides again."""
    pool = await _pool(visit)
    if pool.override is None:
        said = "Nobody holds it: the policy decides already."
    else:
        left = took(pool.override.until - visit.now_s)
        said = f"{pool.override.by} holds it at {plural(pool.override.target, 'machine')} for another {left}."
    return Question(f"Let the policy size pool {pool.pool} again?", [said], "Lift the hold", f"{HERE}/{pool.pool}")


async def lift(visit: Visit) -> Done:
    """Take the word back."""
    pool = visit.path["pool"]
    await visit.api.ask("DELETE", "/v1/scale/override", query={"pool": pool})
    return Done(f"The policy sizes pool {pool} again.", f"{HERE}/{pool}")


async def ask_dry(visit: Visit) -> Question:
    """Before acting stops, or begins again."""
    scale = await visit.api.get("/v1/scale", ScaleView)
    if scale.is_dry:
        said = "It carries out what it decides again: orders machines, and ends them."
        return Question("Let the autoscaler act again?", [said], "Act again", HERE, is_grave=True)
    said = (
        "It goes on deciding and says what it would do, but orders no machine and ends none, until you say otherwise."
    )
    return Question("Only say what would be done?", [said], "Dry run", HERE)


async def set_dry(visit: Visit) -> Done:
    """The other one than now."""
    is_dry = not (await visit.api.get("/v1/scale", ScaleView)).is_dry
    await visit.api.send("POST", "/v1/scale/dry-run", {"is_dry": is_dry})
    word = "only says what it would do" if is_dry else "acts again"
    return Done(f"The autoscaler {word}.", HERE)


async def _pool(visit: Visit) -> ScalePoolView:
    scale = await visit.api.get("/v1/scale", ScaleView)
    found = next((one for one in scale.pools if one.pool == visit.path["pool"]), None)
    if found is None:
        missing = NotFound("pool that is sized", visit.path["pool"], [one.pool for one in scale.pools])
        raise Refused(missing.http_status, missing.code, missing.message)
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """Moments one after the other that decided the same, as the newest of them says it."""

    newest: ScaleLogView
    since: float
    count: int


def _told(entries: list[ScaleLogView]) -> list[Told]:
    """Newest first. Changes stand alone."""
    found: list[Told] = []
    for entry in entries:
        last = found[-1] if found else None
        if last is not None and _says(last.newest) == _says(entry):
            found[-1] = Told(last.newest, entry.decision.at, last.count + 1)
        else:
            found.append(Told(entry, entry.decision.at, 1))
    return found


def _says(entry: ScaleLogView) -> object:
    """What of a moment makes it one with its neighbours; a change is one with none."""
    decision = entry.decision
    if decision.target != decision.before or decision.victims or decision.cordon:
        return decision.at
    rules = [reason.rule for reason in decision.reasons]
    return decision.target, rules, decision.alerts, decision.is_dry


def _there(pool: ScalePoolView) -> int:
    return sum(pool.machines.values())


def _range(pool: ScalePoolView) -> Range:
    return Range(_there(pool), pool.target, pool.min_machines, pool.max_machines)


PAGES = (
    Page(
        HERE, "Autoscaler", "autoscaler.html", load, scope=Scope.FLEET_READ, group="Machines",
        acts=(Act(f"{HERE}/dry-run", Scope.FLEET_WRITE, ask_dry, set_dry),),
    ),
    Page(
        f"{HERE}/{{pool}}", "Pool", "autoscaler_pool.html", load_pool, scope=Scope.FLEET_READ,
        acts=(
            Act(f"{HERE}/{{pool}}/hold", Scope.FLEET_WRITE, ask_hold, hold),
            Act(f"{HERE}/{{pool}}/lift", Scope.FLEET_WRITE, ask_lift, lift),
        ),
    ),
)  # fmt: skip
