"""The story that `mcpfleet demo` tells: each chapter shows one promise of the fleet, and checks it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from orchestrator.cli import paint
from orchestrator.cli.content import parts_of
from orchestrator.cli.demo.teller import Teller
from orchestrator.cli.durations import took
from orchestrator.cli.shortid import short
from tasks.invocation import State
from tasks.wire import DeadLetterView, ExplainView, InvocationView, NodeView, ToolView

PROJECT = "shop"
BUILDER = "builders-1"
CALLS = 10
ZONES = (
    "Europe/Berlin", "Asia/Tokyo", "America/Lima", "Africa/Accra", "Asia/Kolkata",
    "Europe/Paris", "Asia/Dubai", "America/Denver", "Australia/Perth", "Pacific/Fiji",
)  # fmt: skip
ENDING_CELLS = 11
JOINED_S = 60.0
STARTED_S = 15.0


@dataclass(frozen=True, slots=True)
class Props:
    """What the tools work on; None where it could not be made."""

    repository: Path | None
    page_url: str
    expected: frozenset[str]
    """Servers that are installed, and so must be there."""


def tell(teller: Teller, props: Props) -> None:
    """All chapters.

    Raises:
        StoryBroke: a promise did not hold.
        Interrupted: Ctrl-C.
    """
    _the_tools(teller, props)
    if "time" in props.expected:
        _one_call(teller)
        _one_project(teller)
    _a_failure(teller)
    _a_cancel(teller)
    _capabilities(teller, props)
    if "fetch" in props.expected:
        _a_page(teller, props)
    if "everything" in props.expected:
        _a_picture(teller)
    _a_dead_letter(teller)


def _the_tools(teller: Teller, props: Props) -> None:
    teller.chapter("One fleet, one list of tools")
    found: set[str] = set()

    def all_there() -> bool:
        found.update(view.name.partition(".")[0] for view in teller.listing(ToolView, "tools"))
        return props.expected <= found

    teller.until(all_there, JOINED_S, f"the servers {', '.join(sorted(props.expected))} on some node")
    teller.show("nodes")
    teller.typed("tools")
    views = teller.listing(ToolView, "tools")
    servers = Counter(view.name.partition(".")[0] for view in views)
    for server, count in sorted(servers.items()):
        ours = [view for view in views if view.name.startswith(f"{server}.")]
        pools = ", ".join(sorted({pool for view in ours for pool in view.pools}))
        names = ", ".join(view.name.partition(".")[2] for view in ours)
        line = Text.assemble((f"  {server:<11}", "bold"), (f"{count:>3} in {pools:<18}  ", "dim"), names)
        line.truncate(teller.screen.out.width, overflow="ellipsis")
        teller.screen.show(line)
    has_all = len(servers) > len(props.expected)
    teller.promise(has_all, f"{len(views)} tools of {len(servers)} servers, behind one address")


def _one_call(teller: Teller) -> None:
    teller.chapter("Call one, and see where it ran and why")
    view = teller.call("time.get_current_time", "timezone=Europe/Berlin")
    teller.quote(_text(view))
    _say_where(teller, view)
    shown = datetime.fromisoformat(json.loads(_text(view))["datetime"])
    teller.typed("why", short(view.id))
    reasons = teller.ask(ExplainView, "why", view.id).attempts[-1].reasons
    for reason in reasons:
        teller.screen.line(f"  · {reason}")
    teller.promise(shown.tzinfo is not None and bool(reasons), "a real answer, and the reasons for its placement")


def _one_project(teller: Teller) -> None:
    teller.chapter(f"{CALLS} calls of one project stay where its files are")
    teller.typed("call", "time.get_current_time", f"timezone={ZONES[0]}", "--project", PROJECT)
    teller.say(f"  … and {CALLS - 1} more")
    nodes: Counter[str] = Counter()
    bars = Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        console=teller.screen.out,
        disable=not teller.screen.is_person,
    )
    with bars:
        task = bars.add_task(f"project {PROJECT}", total=CALLS)
        for zone in ZONES[:CALLS]:
            view = teller.ask(InvocationView, "call", "time.get_current_time", f"timezone={zone}", "--project", PROJECT)
            nodes[view.node or "nowhere"] += 1
            bars.update(task, advance=1, description=f"project {PROJECT} → {view.node}")
    [(home, count)] = nodes.most_common(1)
    teller.promise(count == CALLS, f"{count} of {CALLS} on {home}")
    bound = [view.name for view in teller.listing(NodeView, "nodes") if PROJECT in view.projects]
    teller.say(f"  bound to it by affinity: {PROJECT} → {', '.join(bound) or home}")


def _a_failure(teller: Teller) -> None:
    teller.chapter("One fails twice, and is tried again with backoff")
    view = teller.call("probe.flaky", "key=demo", "times=2", "--retries", "4", "--pool", "builders")
    before: float | None = None
    for attempt in view.attempts:
        waited = "" if before is None else f"after {took(attempt.released_at - before)}"
        why = attempt.error.message if attempt.error else _text(view)
        line = Text.assemble(
            f"  try {attempt.fence}  ", _padded(paint.ending(attempt.ending)), f"  {waited:<13} ", (why, "dim")
        )
        line.truncate(teller.screen.out.width, overflow="ellipsis")
        teller.screen.show(line)
        before = attempt.ended_at
    holds = view.state is State.SUCCEEDED and len(view.attempts) == 3  # noqa: PLR2004 - two failures and a success
    teller.promise(holds, f"succeeded at try {len(view.attempts)}")


def _a_cancel(teller: Teller) -> None:
    teller.chapter("Cancel a long one")
    view = teller.call("probe.sleep", "seconds=300", "steps=300", "--detach")
    teller.until(
        lambda: teller.ask(InvocationView, "show", view.id).state is State.RUNNING, STARTED_S, "the call is running"
    )
    teller.show("ps")
    teller.show("cancel", short(view.id))
    teller.until(
        lambda: teller.ask(InvocationView, "show", view.id).ended_at is not None, STARTED_S, "the call has ended"
    )
    ended = teller.ask(InvocationView, "show", view.id)
    spent = took((ended.ended_at or 0) - ended.accepted_at)
    teller.promise(ended.state is State.CANCELLED, f"cancelled after {spent} instead of 5 minutes")


def _capabilities(teller: Teller, props: Props) -> None:
    teller.chapter("Work goes to the nodes that can do it")
    if "git" in props.expected and props.repository is not None:
        view = teller.call("git.git_log", f"repo_path={props.repository}", "max_count=3")
        teller.quote(_text(view), lines=10)
        _say_where(teller, view)
        holds = "Begin the shop" in _text(view) and view.node == BUILDER
        teller.promise(holds, f"only {BUILDER} runs git: it went there")
    view = teller.call("probe.pid", "--require", "build")
    _say_where(teller, view)
    teller.promise(view.node == BUILDER, f"asked for the capability build: {BUILDER} has it")
    status = teller.show("call", "probe.pid", "--require", "biuld")
    teller.promise(status != 0, "a capability nobody offers is refused at once")


def _a_page(teller: Teller, props: Props) -> None:
    teller.chapter("A server that reads the web (here: a page on this machine)")
    view = teller.call("fetch.fetch", f"url={props.page_url}", "raw=true", "--project", PROJECT)
    teller.quote(_text(view))
    _say_where(teller, view)
    teller.promise("two for the price of one" in _text(view), "the page came through")


def _a_picture(teller: Teller) -> None:
    teller.chapter("Not only text")
    view = teller.call("everything.get-tiny-image")
    notes = [part.note for part in parts_of(view.result or {}) if part.note]
    for note in notes:
        teller.screen.line(f"  {note}")
    has_image = any("image/png" in note for note in notes)
    teller.promise(has_image, "an image, as its server sent it; --output DIR writes it")


def _a_dead_letter(teller: Teller) -> None:
    teller.chapter("What ends badly is kept, and can be done again")
    view = teller.call("probe.flaky", "key=once", "times=1", "--retries", "0", "--pool", "builders")
    teller.promise(view.state is State.FAILED, "no retries allowed: failed")
    teller.show("dead", "list")
    letters = teller.listing(DeadLetterView, "dead", "list")
    teller.promise(view.id in {letter.id for letter in letters}, "kept as a dead letter, with its reason")
    teller.typed("dead", "replay", short(view.id))
    [again] = teller.listing(InvocationView, "dead", "replay", view.id)
    ended = teller.ask(InvocationView, "result", again.id, "--wait", "30")
    _say_where(teller, ended)
    teller.promise(ended.state is State.SUCCEEDED and ended.replay_of == view.id, "the replay, linked to it, succeeded")


def _say_where(teller: Teller, view: InvocationView) -> None:
    spent = took(view.ended_at - view.accepted_at) if view.ended_at else ""
    node, name = (view.node or "no node", "bold"), (short(view.id), "dim")
    teller.screen.show(Text.assemble("  ", paint.state(view.state), " on ", node, f" in {spent}  ", name))


def _padded(text: Text) -> Text:
    text.pad_right(ENDING_CELLS - text.cell_len)
    return text


def _text(view: InvocationView) -> str:
    return "\n".join(part.text for part in parts_of(view.result or {}) if part.text)
