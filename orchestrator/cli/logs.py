"""`mcpfleet logs`: what processes logged, of a call, of a node, of the orchestrator, of all.

Of a fleet that `mcpfleet up` runs on this machine, whose log files are here. Nodes elsewhere keep their lines to
themselves (journald, Docker, or a collector): this says where to look, and does not pretend to be one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from orchestrator.cli.desk import Desk, JsonFlag, desk_of, full_id
from orchestrator.cli.durations import parse_at
from orchestrator.cli.exits import BadInput, Exit
from orchestrator.cli.log_lines import LEVELS, Folder, Line, Wanted, shown
from orchestrator.cli.shortid import is_full
from orchestrator.local.statefile import read_fleet_file
from tasks.errors import FleetError

EVERY_S = 0.25
ORCHESTRATOR = "orchestrator"
ELSEWHERE = (
    "{where} is not a fleet of this machine, and processes keep their own logs. On their machines: "
    "`journalctl -u mcpfleet-orchestrator -u mcpfleet-node -o cat -f`; with Compose: `docker compose logs -f "
    "orchestrator worker`; on Kubernetes: `kubectl logs -f -l app.kubernetes.io/part-of=mcpfleet`; all in one place: a "
    "collector by OTLP. Lines are JSON: search them for {what}"
)

IdOption = Annotated[str | None, typer.Argument(metavar="[ID]", help="Of an invocation: what all said of it.")]
NodeOption = Annotated[list[str] | None, typer.Option("--node", help="Of this node only; repeatable.")]
OrchestratorFlag = Annotated[bool, typer.Option("--orchestrator", help="Of the orchestrator only.")]
FollowFlag = Annotated[bool, typer.Option("--follow", "-f", help="And then what comes, until Ctrl-C.")]
LevelOption = Annotated[str, typer.Option("--level", metavar="LEVEL", help="debug, info, warning or error, and worse.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="`20m`, `14:05`, `2026-11-22T14:05`; none: all there is.")
]
GrepOption = Annotated[str | None, typer.Option("--grep", metavar="REGEX", help="Lines in which this is found.")]
LinesOption = Annotated[int, typer.Option("--lines", "-n", min=0, help="The last so many.")]


def logs(
    ctx: typer.Context,
    invocation: IdOption = None,
    *,
    node: NodeOption = None,
    orchestrator: OrchestratorFlag = False,
    follow: FollowFlag = False,
    level: LevelOption = "debug",
    since: SinceOption = None,
    grep: GrepOption = None,
    lines: LinesOption = 200,
    as_json: JsonFlag = False,
) -> int:
    """Show what processes logged: of an invocation, of nodes, of the orchestrator, of all; -f follows."""
    desk = desk_of(ctx)
    processes = frozenset([*(node or []), *([ORCHESTRATOR] if orchestrator else [])])
    wanted = Wanted(
        processes=processes,
        level=_level(level),
        since=0.0 if since is None else parse_at(since, desk.now()),
        pattern=None if grep is None else _pattern(grep),
        words=() if invocation is None else _words(desk, invocation),
    )
    folder = Folder(_folder(desk, wanted))
    _known(processes, folder.names())
    found = [line for line in folder.history() if wanted.has(line)]
    width = max((len(name) for name in folder.names()), default=len(ORCHESTRATOR))
    _show(desk, found[-lines:] if lines else [], width, as_json=as_json)
    if not found and not follow:
        said = " of it; MCPFLEET_LOG_LEVEL=debug and MCPFLEET_NODE_LOG_LEVEL=debug have a line per call"
        desk.screen.note(f"[dim]nothing was logged{said if invocation else ''}[/]")
    while follow:
        desk.sleep(EVERY_S)
        _show(desk, [line for line in folder.new() if wanted.has(line)], width, as_json=as_json)
    return Exit.OK


def _show(desk: Desk, lines: list[Line], width: int, *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            desk.screen.raw(line.raw)
            continue
        for text in shown(line, width):
            if desk.screen.is_person:
                desk.screen.out.print(text, soft_wrap=True)
            else:
                desk.screen.line(text.plain)


def _folder(desk: Desk, wanted: Wanted) -> Path:
    """Where the log files are.

    Raises:
        BadInput: on other machines.
    """
    local, path = read_fleet_file(desk.settings.state_dir), desk.settings.state_dir / "logs"
    url = desk.settings.url
    is_elsewhere = url is not None and (local is None or local.url.rstrip("/") != url.rstrip("/"))
    if is_elsewhere or not path.is_dir():
        where = url or f"{desk.settings.state_dir} (no fleet ran there; `mcpfleet up` starts one): this"
        raise BadInput(ELSEWHERE.format(where=where, what=" or ".join(wanted.words) or "an invocation's id"))
    return path


def _words(desk: Desk, invocation: str) -> tuple[str, ...]:
    """What lines about it hold: its id, and its trace's. Without an orchestrator, the whole id alone."""
    try:
        with desk.api() as api:
            found = api.invocation(full_id(api, invocation))
    except FleetError:
        if not is_full(invocation):
            raise
        return (invocation,)
    return (found.id, *([found.trace_id] if found.trace_id else []))


def _level(text: str) -> str:
    if text not in LEVELS:
        raise BadInput(f"--level is {text!r}: write debug, info, warning or error")
    return text


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise BadInput(f"--grep {text!r} is no regular expression: {error}") from error


def _known(processes: frozenset[str], names: list[str]) -> None:
    strangers = processes - set(names)
    if strangers:
        raise BadInput(f"no log of {', '.join(sorted(strangers))}; there are {escape(', '.join(names)) or 'none'}")
