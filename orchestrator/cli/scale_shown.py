"""The autoscaler's answers as people read them: tables, sentences, and two lines of bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.text import Text

from orchestrator.cli.desk import Desk
from orchestrator.cli.durations import ago, took, when
from orchestrator.cli.screen import Cell, Column
from tasks.scale_wire import (
    LaneSeenView,
    MachineView,
    PoolSeenView,
    ReplayTotalView,
    ScaleDecisionView,
    ScaleLogView,
    ScalePoolView,
    ScaleReplayView,
    ScaleView,
)

BARS = " ▁▂▃▄▅▆▇█"
CHART_MAX = 120
CHART_PIPED = 72
DIFFERENCES_SHOWN = 12
_STATES = {
    "booting": ("◌", "yellow"),
    "provisioning": ("◐", "yellow"),
    "ready": ("●", "green"),
    "leaving": ("⊘", "cyan"),
    "left": ("◌", "yellow"),
    "draining": ("⊘", "cyan"),
    "refused": ("✗", "red"),
    "terminating": ("⊘", "dim"),
    "gone": ("✗", "dim"),
}


def show_fleet(desk: Desk, view: ScaleView) -> None:
    """`mcpfleet scale`."""
    if view.note:
        desk.screen.note(f"[dim]{escape(view.note)}[/]")
        return
    columns = [
        Column("POOL"),
        Column("BY"),
        Column("MACHINES"),
        Column("TARGET", is_right=True),
        Column("LIMITS", is_right=True),
        Column("€/H", is_right=True),
        Column("WHY", is_wide=True),
    ]
    desk.screen.table(columns, [_pool_row(pool) for pool in view.pools])
    machines = sum(sum(pool.machines.values()) for pool in view.pools)
    room = "" if view.budget_eur_h is None else f" of {_money(view.budget_eur_h)}"
    desk.screen.line(f"{view.cluster}: {_count(machines)}, {_money(view.cost_eur_h)}{room} €/h")
    if view.is_dry:
        desk.screen.note("[yellow]‖[/] dry run: decisions are shown, not carried out; mcpfleet scale dry-run off")
    for pool in view.pools:
        _note_pool(desk, pool)
    for alert in view.alerts:
        desk.screen.note(f"[red]![/] {escape(alert)}")


def _pool_row(pool: ScalePoolView) -> list[Cell]:
    price = f"{_money(pool.cost_eur_h)}{'+?' if pool.unpriced else ''}"
    return [
        Text(pool.pool, "bold"),
        "hand" if pool.override else pool.strategy,
        _machines(pool),
        "" if pool.target is None else str(pool.target),
        f"{pool.min_machines}-{pool.max_machines}",
        price,
        "nothing was decided yet" if pool.decision is None else _decisive(pool.decision),
    ]


def _machines(pool: ScalePoolView) -> str:
    there = ", ".join(f"{count} {state}" for state, count in pool.machines.items()) or "none"
    return f"{there} ({pool.refused} refused)" if pool.refused else there


def _note_pool(desk: Desk, pool: ScalePoolView) -> None:
    name = escape(pool.pool)
    if pool.override is not None:
        by, held = pool.override.by or "somebody", pool.override
        desk.screen.note(
            f"[yellow]![/] {name} shall have {held.target} until {when(held.until)}, says {escape(by)}; "
            f"mcpfleet scale unset {name}"
        )
    for alert in pool.decision.alerts if pool.decision else ():
        desk.screen.note(f"[red]![/] {name}: {escape(alert)}")


def show_machines(desk: Desk, found: Sequence[MachineView]) -> None:
    """`mcpfleet scale machines`."""
    now, is_narrow = desk.now(), desk.screen.is_person and not desk.screen.is_roomy
    columns = [
        Column("NODE"),
        Column("STATE"),
        Column("FOR", is_right=True),
        Column("WHERE"),
        *([] if is_narrow else [Column("AGE", is_right=True), Column("ADDRESS"), Column("€/H", is_right=True)]),
        Column("WHY", is_wide=True),
    ]
    rows: list[list[Cell]] = []
    for view in found:
        price = "?" if view.price_eur_h is None else _money(view.price_eur_h)
        more = [ago(view.created_at, view.terminated_at or now), view.address or "", price]
        rows.append(
            [
                Text(view.node, "bold"),
                _state(view.standing or view.state),
                ago(view.state_at, now),
                _where(view),
                *([] if is_narrow else more),
                view.error or view.reason,
            ]
        )
    desk.screen.table(columns, rows, empty="no machine was ordered, or all are gone for an hour")


def show_explained(desk: Desk, decision: ScaleDecisionView, seen: PoolSeenView, *, verb: str = "should have") -> None:
    """One decision in words and numbers: what it is, what it was made of, and each rule's word."""
    show, line = desk.screen.show, desk.screen.line
    tail = " (dry run: not carried out)" if decision.is_dry else ""
    style = "green" if decision.target > decision.before else "cyan" if decision.target < decision.before else ""
    head = f"{decision.pool} {verb} {_count(decision.target)}, has {decision.before}"
    if desk.screen.is_person:
        show(Text.assemble((f"{when(decision.at)}  ", "dim"), (head, f"bold {style}".strip()), (tail, "yellow")))
    else:
        line(f"{when(decision.at)}  {head}{tail}")
    entries = [*_seen_lines(seen)]
    entries += [
        (reason.rule, reason.text if reason.machines is None else f"{reason.text} → {reason.machines}")
        for reason in decision.reasons
    ]
    entries += [("lets go", ", ".join(decision.victims))] if decision.victims else []
    entries += [("cordons", ", ".join(decision.cordon))] if decision.cordon else []
    width = max(len(label) for label, _ in entries)
    for label, text in entries:
        _entry(desk, label.ljust(width), text)
    for alert in decision.alerts:
        desk.screen.note(f"  [red]![/] {escape(alert)}")
    line()


def show_nothing(desk: Desk, pool: str, from_: float, until: float, earlier: float | None) -> None:
    """No decision in that time: why it was that time, and where there is one."""
    newest = (
        f"the one before it is of {when(earlier)}"
        if earlier is not None
        else "nothing before it is on record either, which goes back to the first start and a week at most"
    )
    desk.screen.note(
        f"[dim]nothing was decided about {escape(pool)} between {when(from_)} and {when(until)} "
        f"(without --since one hour is looked through); {newest}[/]"
    )


def _entry(desk: Desk, label: str, text: str) -> None:
    """A rule and its word; on a terminal the word goes on below itself."""
    if not desk.screen.is_person:
        desk.screen.line(f"  {label}  {text}")
        return
    room = max(20, desk.screen.out.width - len(label) - 5)
    for number, part in enumerate(_wrapped(text, room)):
        desk.screen.line(f"  {label if number == 0 else ' ' * len(label)}  {part}")


def _seen_lines(seen: PoolSeenView) -> Iterable[tuple[str, str]]:
    alive = {
        lane: one for lane, one in seen.lanes.items() if one.waiting + one.queued + one.running or one.arrivals_per_s
    }
    for lane, one in (alive or seen.lanes).items():
        yield lane, _lane_line(one)
    nodes = ", ".join(f"{count} {state}" for state, count in seen.machines.items()) or "no machine"
    parts = [nodes]
    parts += [f"{seen.others} joined by hand"] if seen.others else []
    parts += [f"CPU {seen.cpu:.0%}"] if seen.cpu is not None else []
    parts += [f"memory {seen.memory:.0%}"] if seen.memory is not None else []
    parts += [f"9 of 10 boots within {took(seen.boot_p90_s)}"] if seen.boot_p90_s is not None else []
    parts += [f"the next costs {_money(seen.price_eur_h)} €/h"] if seen.price_eur_h is not None else []
    parts += [f"quota leaves {seen.quota_left}"] if seen.quota_left is not None else []
    yield "machines", ", ".join(parts)
    for said in seen.refused:
        yield "refused", said
    if seen.missing:
        yield "unknown", "; ".join(seen.missing)


def _lane_line(lane: LaneSeenView) -> str:
    parts = [f"{lane.running} of {lane.slots} slots busy", f"{lane.waiting + lane.queued} waiting"]
    parts += [f"the oldest for {took(lane.oldest_wait_s)}"] if lane.waiting else []
    parts += [f"{_rate(lane.arrivals_per_s)} arrive/s"]
    parts += [f"a call takes {took(lane.service_mean_s)}"] if lane.service_mean_s is not None else []
    parts += [f"95 of 100 waited under {took(lane.wait_p95_s)}"] if lane.wait_p95_s is not None else []
    parts += [f"{lane.error_rate:.1%} fail"] if lane.error_rate else []
    return ", ".join(parts)


def turning_points(found: Sequence[ScaleLogView]) -> list[ScaleLogView]:
    """Decisions that changed something, or raised another alarm than the one before; and the last."""
    kept: list[ScaleLogView] = []
    alerts: list[str] | None = None
    for view in found:
        decision = view.decision
        if decision.target != decision.before or decision.alerts != (alerts or []):
            kept.append(view)
        alerts = decision.alerts
    return kept if not found or (kept and kept[-1] is found[-1]) else [*kept, found[-1]]


def show_replay(desk: Desk, view: ScaleReplayView) -> None:
    """`mcpfleet scale replay`."""
    if not view.steps:
        desk.screen.note(f"[dim]nothing was recorded of {escape(view.pool)} in that time[/]")
        return
    line, first, last = desk.screen.line, view.steps[0].at, view.steps[-1].at
    width = min(CHART_MAX, desk.screen.out.width - 10) if desk.screen.is_person else CHART_PIPED
    most = max(view.was.most, view.would.most, 1)
    line(f"target of {view.pool}, 0 to {most}, {when(first)} to {when(last)}")
    for label, targets in (("was", [s.was for s in view.steps]), ("would", [s.would for s in view.steps])):
        points = list(zip((step.at for step in view.steps), targets, strict=True))
        line(f"  {label:<6}{bars(points, width, most)}")
    line()
    for label, total in (("was", view.was), ("would", view.would)):
        line(f"  {label:<6}{_total(total)}")
    line(f"  differs at {view.differs} of {len(view.steps)} moments, each judged with the machines there were")
    line(f"  kept are {len(view.steps)} of about {view.rounds} rounds: every change, else one in five minutes")
    _show_differences(desk, view)
    if view.unreadable:
        desk.screen.note(f"[yellow]![/] {view.unreadable} records of another release were passed by")


def _show_differences(desk: Desk, view: ScaleReplayView) -> None:
    before: tuple[int, int] | None = None
    rows: list[list[Cell]] = []
    for step in view.steps:
        pair = (step.was, step.would)
        if step.was != step.would and pair != before:
            why = next((one.text for one in reversed(step.reasons) if one.machines is not None), "")
            rows.append([when(step.at), str(step.before), str(step.was), str(step.would), why])
        before = pair
    if not rows:
        return
    desk.screen.line()
    columns = [
        Column("AT"),
        Column("HAD", is_right=True),
        Column("WAS", is_right=True),
        Column("WOULD", is_right=True),
        Column("WHY IT WOULD", is_wide=True),
    ]
    desk.screen.table(columns, rows[:DIFFERENCES_SHOWN])
    if len(rows) > DIFFERENCES_SHOWN:
        desk.screen.note(f"[dim]and {len(rows) - DIFFERENCES_SHOWN} more; --json has all of them[/]")


def bars(points: Sequence[tuple[float, int]], width: int, most: int) -> str:
    """One row of bars over time, each the highest target of its share of it; a gap repeats what was before."""
    first, last = points[0][0], points[-1][0]
    cells: list[int | None] = [None] * width
    for at, target in points:
        place = min(width - 1, int((at - first) / (last - first) * width)) if last > first else 0
        cells[place] = max(target, cells[place] or 0)
    row, held = "", 0
    for cell in cells if last > first else cells[:1]:
        held = held if cell is None else cell
        row += BARS[0] if held == 0 else BARS[max(1, round(held / most * (len(BARS) - 1)))]
    return row.rstrip() or "(none)"


def _total(total: ReplayTotalView) -> str:
    return f"{total.machine_h:.1f} machine-hours, at most {total.most}, {total.changes} changes"


def _decisive(decision: ScaleDecisionView) -> str:
    """The last word that had a number; it decided."""
    decided = [reason.text for reason in decision.reasons if reason.machines is not None]
    return decided[-1] if decided else ""


def _where(view: MachineView) -> str:
    place = " ".join(part for part in (view.provider, view.type, view.region) if part)
    return f"{place} spot" if view.is_spot else place


def _state(state: str) -> Text:
    glyph, style = _STATES.get(state, ("?", ""))
    return Text(f"{glyph} {state}", style)


def _count(machines: int) -> str:
    return "1 machine" if machines == 1 else f"{machines} machines"


def _money(eur_h: float) -> str:
    return f"{eur_h:.4f}".rstrip("0").rstrip(".") if eur_h else "0"


def _rate(per_s: float) -> str:
    return f"{per_s:.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.2g}"  # noqa: PLR2004 - two digits


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines
