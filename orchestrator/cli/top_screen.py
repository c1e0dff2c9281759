"""One frame of `mcpfleet top` as lines that fit a terminal: no line is longer than it is wide.

Pure. States and loads are words and numbers first; colour only repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.durations import clock, took
from orchestrator.cli.screen import clean
from orchestrator.cli.shortid import short
from orchestrator.cli.top_frame import DEAD_MAX, Frame
from tasks.invocation import Lane
from tasks.wire import InvocationView, NodeView

ATTENTION_MAX = 3
WIDE_COLUMNS = 110
SORTS = ("slowest", "tool", "node", "project")
KEYS = "q quit · ↑↓ or j k choose · enter open · s sort · esc back · ? help"
HELP = (
    "q, Ctrl-C     end",
    "↑ ↓, j k      choose a node or a call",
    "enter         show it; esc, or enter again, goes back",
    "s             sort calls: slowest, tool, node, project",
    "",
    "wait          from accepted, or due, to released to a node",
    "at nodes      released and not settled; running is what nodes said",
    "2/8           attempts that a node holds, of its slots",
    "per second    of all tenants, in the last minute; failed is also expired or lost",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the person chose."""

    row: int = 0
    sort: str = SORTS[0]
    is_open: bool = False
    is_help: bool = False
    since: float | None = None
    """The orchestrator has not answered since; None: it does."""
    why: str = ""


Row = NodeView | InvocationView


def rows_of(frame: Frame, sort: str) -> list[Row]:
    """What can be chosen, in the order shown: nodes, then calls."""
    keys: dict[str, Callable[[InvocationView], tuple[object, ...]]] = {
        "slowest": lambda call: (_since(call), call.id),
        "tool": lambda call: (call.tool, _since(call)),
        "node": lambda call: (call.node or "", _since(call)),
        "project": lambda call: (call.project or "", _since(call)),
    }
    calls: list[InvocationView] = sorted(frame.calls, key=keys[sort])
    return [*frame.nodes, *calls]


def pressed(look: Look, key: str, rows: int) -> Look | None:
    """What a key does; None: the end."""
    match key:
        case "q":
            return None
        case "?":
            return replace(look, is_help=not look.is_help)
        case "esc":
            return replace(look, is_open=False, is_help=False)
        case "enter":
            return replace(look, is_open=not look.is_open and rows > 0, is_help=False)
        case "s":
            return replace(look, sort=SORTS[(SORTS.index(look.sort) + 1) % len(SORTS)])
        case "down" | "j":
            return replace(look, row=min(look.row + 1, max(0, rows - 1)))
        case "up" | "k":
            return replace(look, row=max(0, min(look.row, rows - 1) - 1))
        case _:
            return look


def draw(frame: Frame, look: Look, *, width: int, height: int | None) -> list[Text]:
    """The lines of the screen.

    Args:
        frame: what is so.
        look: what is chosen.
        width: columns.
        height: lines; None: as many as it takes, without keys and choice (`--once`).
    """
    rows = rows_of(frame, look.sort)
    head = _head(frame, look)
    foot = [] if height is None else [Text(KEYS, "dim")]
    if look.is_help:
        body = [Text(line) for line in HELP]
    elif look.is_open and rows:
        body = _detail(rows[min(look.row, len(rows) - 1)], frame, width)
    else:
        body = _tables(frame, look, rows, width, None if height is None else height - len(head) - len(foot))
    if height is not None:
        head = head[: max(1, height - len(foot))]
        body = body[: max(0, height - len(head) - len(foot))]
        body += [Text("")] * (height - len(head) - len(foot) - len(body))
    return [_fit(line, width) for line in (*head, *body, *foot)]


def _head(frame: Frame, look: Look) -> list[Text]:
    title = Text.assemble(("mcpfleet top", "bold"), f"  {frame.url}  {clock(frame.at)[:8]}")
    lines = [title]
    if look.since is not None:
        lines.append(
            Text(f"! no answer since {clock(look.since)[:8]}, this is how it was then: {look.why}", "bold red")
        )
    if frame.pulse is not None:
        pulse = frame.pulse
        lines.append(
            Text(
                f"per second   {_rate(pulse.accepted_per_s)} accepted, {_rate(pulse.ended_per_s)} ended, "
                f"{_rate(pulse.failed_per_s)} failed · wait p50 {took(pulse.wait_p50_s) or '-'}, "
                f"p95 {took(pulse.wait_p95_s) or '-'}"
            )
        )
    if frame.backlog is not None:
        backlog = frame.backlog
        oldest = f" (oldest {took(backlog.oldest_wait_s)})" if backlog.waiting else ""
        later = f", {backlog.delayed} for later" if backlog.delayed else ""
        lines.append(Text(f"calls        {backlog.waiting} waiting{oldest}{later}, {backlog.outstanding} at nodes"))
    lines.append(Text(f"money        {_money(frame)}"))
    more = len(frame.attention) - ATTENTION_MAX
    lines += [Text(f"! {clean(said)}", "yellow") for said in frame.attention[:ATTENTION_MAX]]
    if more > 0:
        lines.append(Text(f"! and {more} more: mcpfleet doctor", "yellow"))
    return lines


def _rate(per_s: float) -> str:
    return f"{per_s:.0f}" if per_s >= 10 or not per_s else f"{per_s:.2f}"  # noqa: PLR2004 - two digits that say something


def _money(frame: Frame) -> str:
    said = []
    if frame.scale is not None and not frame.scale.note:
        ordered = sum(sum(pool.machines.values()) for pool in frame.scale.pools)
        targets = ", ".join(f"{pool.pool} → {pool.target}" for pool in frame.scale.pools if pool.target is not None)
        dry = ", dry run" if frame.scale.is_dry else ""
        said.append(f"{ordered} machines ordered, {frame.scale.cost_eur_h:.2f} €/h ({targets or 'not decided'}{dry})")
    else:
        said.append("autoscaler off")
    if frame.costs is not None:
        cost = frame.costs.total.cost_usd
        said.append(f"models ${0.0 if cost is None else cost:.2f} in 24 h")
    if frame.dead_letters is not None:
        said.append(f"{frame.dead_letters}{'+' if frame.dead_letters >= DEAD_MAX else ''} dead letters")
    return " · ".join(said)


def _tables(frame: Frame, look: Look, rows: Sequence[Row], width: int, room: int | None) -> list[Text]:
    chosen = None if room is None or not rows else min(look.row, len(rows) - 1)
    nodes = [_node(node, width, is_chosen=index == chosen) for index, node in enumerate(frame.nodes)]
    calls = [
        _call(call, frame.at, width, is_chosen=index == chosen)
        for index, call in enumerate(rows)
        if isinstance(call, InvocationView)
    ]
    queues = _queues(frame)
    if room is not None:
        seen = 0 if chosen is None or chosen < len(nodes) else chosen - len(nodes)
        spare = max(4, room - 2 - len(queues))
        for_calls = min(len(calls) or 1, max(spare // 2, spare - len(nodes)))
        nodes = _window(nodes, spare - for_calls, chosen if chosen is not None and chosen < len(nodes) else 0)
        calls = _window(calls, for_calls, seen)
    return [
        Text(" " + _node_line("NODE", "STATE", "LEASE", "TOOLS", "AGENTS", "CPU", "MEM", "POOL"), "bold"),
        *(nodes or [Text("  no node has joined")]),
        *queues,
        Text(f" {_call_line('CALL', 'STATE', 'FOR', 'NODE', 'PROJECT', 'TOOL', width)}  [{look.sort}]", "bold"),
        *(calls or [Text("  nothing is at a node")]),
    ]


def _window(lines: list[Text], room: int, chosen: int) -> list[Text]:
    """As many as there is room for, the chosen one among them; the last says how many are not shown."""
    room = max(1, room)
    if len(lines) <= room:
        return lines
    first = min(max(0, chosen - room + 2), len(lines) - room + 1)
    shown = lines[first : first + room - 1]
    return [*shown, Text(f"  … {len(lines) - len(shown)} more", "dim")]


def _node(node: NodeView, width: int, *, is_chosen: bool) -> Text:
    lease = took(node.lease_left_s) if node.lease_left_s > 0 else "over"
    lanes = [f"{node.outstanding.get(lane, 0)}/{node.slots.get(lane, 0)}" for lane in (Lane.TOOLS, Lane.AGENTS)]
    words = _node_line(node.name, node.state, lease, *lanes, f"{node.cpu:.0%}", f"{node.memory:.0%}", node.pool)
    extra = f"  {node.version}  {' '.join(node.capabilities)}" if width >= WIDE_COLUMNS else ""
    return _line(words + extra, paint.node_state(node.state).style, is_chosen=is_chosen)


def _node_line(name: str, *cells: str) -> str:
    state, lease, tools, agents, cpu, memory, pool = cells
    return f"{_cut(name, 20):<20} {state:<9} {lease:>7} {tools:>7} {agents:>7} {cpu:>5} {memory:>5}  {pool}"


def _call(call: InvocationView, now: float, width: int, *, is_chosen: bool) -> Text:
    words = _call_line(
        short(call.id), call.state, took(now - _since(call)), call.node or "any", call.project or "-", call.tool, width
    )
    return _line(words, paint.state(call.state).style, is_chosen=is_chosen)


def _call_line(ident: str, *cells: str | int) -> str:
    state, age, node, project, tool, width = cells
    wide = isinstance(width, int) and width >= WIDE_COLUMNS
    room = 24 if wide else 14
    return f"{ident:<9} {state:<11} {age:>9}  {_cut(str(node), room):<{room}} {_cut(str(project), room):<{room}} {tool}"


def _queues(frame: Frame) -> list[Text]:
    """Where messages wait, the deepest first; and pools with a backlog of their own."""
    deep = sorted((queue for queue in frame.queues if queue.depth_msgs), key=lambda queue: -queue.depth_msgs)
    said = [f"{queue.name} {queue.depth_msgs}{' paused' if queue.is_paused else ''}" for queue in deep[:4]]
    said += [f"pool {pool.name} {pool.waiting} waiting" for pool in frame.pools if pool.waiting]
    total = sum(queue.depth_msgs for queue in frame.queues)
    return [Text(f"queues       {total} messages in {len(frame.queues)}" + "".join(f" · {one}" for one in said))]


def _detail(row: Row, frame: Frame, width: int) -> list[Text]:
    facts = _node_facts(row) if isinstance(row, NodeView) else _call_facts(row, frame.at)
    lines = []
    for name, value in facts:
        parts = wrap(clean(value), max(20, width - 13))
        lines += [Text.assemble((f"{'' if at else name:<13}", "dim"), part) for at, part in enumerate(parts)]
    return lines


def _node_facts(node: NodeView) -> list[tuple[str, str]]:
    return [
        ("node", node.name),
        ("state", f"{node.state}, lease {took(node.lease_left_s)} left"),
        ("pool", node.pool),
        *((f"{lane}", f"{node.running.get(lane, 0)} running, {node.outstanding.get(lane, 0)} held, {slots} slots")
          for lane, slots in sorted(node.slots.items())),
        ("load", f"cpu {node.cpu:.0%}, memory {node.memory:.0%}"),
        ("version", node.version),
        ("location", node.location),
        ("capabilities", " ".join(node.capabilities)),
        ("tools", str(node.tools)),
        ("projects", ", ".join(node.projects)),
        *((f"! {server or 'node'}", why) for server, why in {**node.unhealthy, **node.circuits}.items()),
        ("next", f"mcpfleet node drain {node.name} · mcpfleet logs --node {node.name}"),
    ]  # fmt: skip


def _call_facts(call: InvocationView, now: float) -> list[tuple[str, str]]:
    last = call.attempts[-1] if call.attempts else None
    return [
        ("call", call.id),
        ("tool", call.tool),
        ("project", call.project or ""),
        ("state", f"{call.state}, {took(now - _since(call))}"),
        ("node", call.node or "any of the pool"),
        ("lane", call.lane),
        ("by", f"{call.principal} of {call.tenant}"),
        ("accepted", clock(call.accepted_at)),
        ("attempt", f"{call.fence}, tries {call.tries}"),
        ("because", "; ".join(last.reasons) if last else ""),
        ("trace", call.trace_id or ""),
        ("next", f"mcpfleet why {short(call.id)} · mcpfleet logs {short(call.id)} · mcpfleet cancel {short(call.id)}"),
    ]


def _since(call: InvocationView) -> float:
    """When what it is doing now began."""
    last = call.attempts[-1] if call.attempts else None
    if last is None:
        return call.accepted_at
    return last.started_at or last.released_at


def _line(words: str, style: object, *, is_chosen: bool) -> Text:
    """A row; the chosen one has a mark, for eyes and terminals without reverse video."""
    return Text(f"{'>' if is_chosen else ' '}{clean(words)}", f"{style} reverse" if is_chosen else str(style))


def _fit(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
