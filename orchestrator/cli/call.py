"""`mcpfleet call`: place one tool call, watch it, show the answer.

The answer goes to standard output, where it was placed and how it went to standard error. Ctrl-C
cancels the Invocation, unless it is detached.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from orchestrator.cli.answer import show_answer
from orchestrator.cli.api import Api
from orchestrator.cli.arguments import needs_schema, parse_object, parse_words
from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.durations import parse_s
from orchestrator.cli.exits import BadInput, Exit, Refused
from orchestrator.cli.shortid import short
from orchestrator.cli.tracing import traced
from orchestrator.cli.watch import follow
from tasks.ids import new_id
from tasks.invocation import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, TERMINAL, Lane
from tasks.tool import RetryForm
from tasks.wire import CallRequest, InvocationView, ToolView

ARGUMENTS_MAX_BYTES = 64 * 1024 * 1024
"""Of `--args-json` from a file or standard input; the orchestrator's own limit is lower and names itself."""

ToolArgument = Annotated[str, typer.Argument(metavar="SERVER.TOOL", help="As `mcpfleet tools` lists it.")]
WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Typed by the tool's schema; KEY:=JSON is raw JSON, KEY=@FILE a file's text."
    ),
]
ArgsJson = Annotated[
    str | None,
    typer.Option(
        "--args-json", metavar="JSON|@FILE|-", help="All arguments as one JSON object; - reads standard input."
    ),
]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Calls of one project stay together on one node.")]
Require = Annotated[
    list[str] | None,
    typer.Option("--require", "-r", metavar="CAP", help="A capability the node must have; repeatable."),
]
Pool = Annotated[str | None, typer.Option("--pool", help="Only nodes of this pool.")]
LaneOption = Annotated[Lane | None, typer.Option("--lane", help="tools: seconds, many at once; agents: long, few.")]
Priority = Annotated[
    int, typer.Option("--priority", min=PRIORITY_MIN, max=PRIORITY_MAX, help="Higher is sooner, within one project.")
]
Deadline = Annotated[
    str | None, typer.Option("--deadline", metavar="TIME", help="Give it up when it has not ended by then: 30, 5m, 2h.")
]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="How long one attempt may run.")]
Wait = Annotated[
    str | None, typer.Option("--wait", metavar="TIME", help="Stop waiting (status 7) after this; the call goes on.")
]
Retries = Annotated[int | None, typer.Option("--retries", min=0, help="Tries after the first; 0 never repeats.")]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same key gives the same invocation.")
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Print the id and return at once.")]
Grant = Annotated[
    str | None,
    typer.Option("--grant", metavar="TOKEN|@FILE", help="Of AuthGuardian, for a tool that needs one."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write images, audio, files and texts there.")
]


def call(
    ctx: typer.Context,
    *,
    tool: ToolArgument,
    words: WordsArgument = None,
    args_json: ArgsJson = None,
    project: Project = None,
    require: Require = None,
    pool: Pool = None,
    lane: LaneOption = None,
    priority: Priority = PRIORITY_DEFAULT,
    deadline: Deadline = None,
    timeout: Timeout = None,
    wait: Wait = None,
    retries: Retries = None,
    idempotency_key: Key = None,
    grant: Grant = None,
    output: Output = None,
    detach: Detach = False,
    as_json: JsonFlag = False,
) -> int:
    """Call a tool of the fleet and show its answer."""
    desk = desk_of(ctx)
    with desk.api() as api, traced(desk, api, tool):
        request = CallRequest(
            tool=tool,
            arguments=_arguments(desk, api, tool, words or [], args_json),
            project=project,
            requires=frozenset(require or ()),
            pool=pool,
            lane=lane,
            priority=priority,
            deadline_s=_seconds(deadline),
            timeout_s=_seconds(timeout),
            retry=None if retries is None else RetryForm(attempts=retries + 1),
            idempotency_key=idempotency_key,
            grant=_read_file(grant[1:]).strip() if grant and grant.startswith("@") else grant,
            id=None if idempotency_key else new_id(),
        )
        return place(desk, api, request, wait_s=_seconds(wait), detach=detach, output=output, as_json=as_json)


def place(
    desk: Desk,
    api: Api,
    request: CallRequest,
    *,
    wait_s: float | None,
    detach: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Submit, then leave it or see it through."""
    try:
        view = api.submit(request)
        return see_through(desk, api, view, wait_s=wait_s, detach=detach, output=output, as_json=as_json)
    except KeyboardInterrupt:  # it may have been accepted just now; the id is ours, so it can be named
        return _interrupted(desk, api, request.id)


def see_through(
    desk: Desk,
    api: Api,
    view: InvocationView,
    *,
    wait_s: float | None,
    detach: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Print the id and return, or follow to the end and show the answer."""
    if detach:
        if as_json:
            desk.screen.json(view)
        else:
            desk.screen.line(view.id)
            desk.screen.note(f"[dim]mcpfleet show {short(view.id)}   mcpfleet result {short(view.id)} --wait 1m[/]")
        return Exit.OK
    try:
        view = follow(desk, api, view, wait_s=wait_s)
    except KeyboardInterrupt:
        return _interrupted(desk, api, view.id)
    return show_answer(desk, view, output=output, as_json=as_json)


def _interrupted(desk: Desk, api: Api, name: str | None) -> int:
    if name is None:
        desk.screen.note("[yellow]Ctrl-C:[/] it may have been accepted; the same --idempotency-key finds it")
        return Exit.INTERRUPTED
    try:
        ended = api.act(name, "cancel")
    except Refused as refused:
        desk.screen.note(f"[yellow]Ctrl-C:[/] {escape(refused.message)}; had it been accepted: mcpfleet show {name}")
        return Exit.INTERRUPTED
    if ended.state in TERMINAL:
        desk.screen.note(f"[yellow]Ctrl-C:[/] {short(name)} is {ended.state}")
    else:
        desk.screen.note(f"[yellow]Ctrl-C:[/] told the node to cancel {short(name)}; mcpfleet show {short(name)}")
    return Exit.INTERRUPTED


def _arguments(desk: Desk, api: Api, tool: str, words: list[str], args_json: str | None) -> dict[str, object]:
    base: dict[str, object] = {}
    if args_json is not None:
        base = parse_object(*_read_json(desk, args_json))
    schema: dict[str, object] = {}
    if needs_schema(words):
        definition = api.get(f"/v1/tools/{tool}", ToolView).definition
        schema = definition.get("inputSchema") or {}
    return {**base, **parse_words(words, schema, _read_file)}


def _read_json(desk: Desk, given: str) -> tuple[str, str]:
    if given == "-":
        raw = desk.stdin.read(ARGUMENTS_MAX_BYTES + 1)
        if len(raw) > ARGUMENTS_MAX_BYTES:
            raise BadInput(f"standard input has more than {ARGUMENTS_MAX_BYTES} bytes; pass a reference instead")
        try:
            return raw.decode(), "standard input"
        except UnicodeDecodeError as error:
            raise BadInput("standard input is not UTF-8") from error
    if given.startswith("@"):
        return _read_file(given[1:]), given[1:]
    return given, "--args-json"


def _read_file(name: str) -> str:
    try:
        path = Path(name).expanduser()
        if path.stat().st_size > ARGUMENTS_MAX_BYTES:
            raise BadInput(f"{name} has more than {ARGUMENTS_MAX_BYTES} bytes; pass a reference instead")
        return path.read_text()
    except OSError as error:
        raise BadInput(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 text") from error


def _seconds(text: str | None) -> float | None:
    return None if text is None else parse_s(text)
