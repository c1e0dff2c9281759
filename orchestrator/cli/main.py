"""The command `mcpfleet`: wires the commands together and turns every end into one exit status.

Owns no behaviour of its own. Errors become one line on standard error; a traceback is shown only
for what we did not foresee.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, BinaryIO, TextIO

import httpx
import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from orchestrator.cli import (
    approvals,
    audit,
    ca,
    call,
    console,
    cost,
    dead,
    fleet,
    flower,
    guard,
    invocations,
    keys,
    ledger,
    logs,
    nodes,
    oauth,
    objectives,
    policy,
    projects,
    redis,
    scale,
    secrets,
    tools,
    top,
)
from orchestrator.cli.desk import Desk
from orchestrator.cli.exits import Exit, of_error
from orchestrator.cli.screen import Screen
from orchestrator.cli.settings import read_settings
from orchestrator.wanted import wanted
from tasks.errors import FleetError

NAME = "mcpfleet"
_CHOICE = re.compile(r"Invalid value for '(?P<name>[^']*)': (?P<given>'.*') is not one of (?P<known>.*)\.")

_CALLS, _MACHINES, _DOORS, _HERE = "Calls", "Machines", "Who may come in", "This machine"
_COMMANDS: Mapping[str, Sequence[Callable[..., object]]] = {
    _CALLS: (
        tools.tools,
        call.call,
        invocations.ps,
        invocations.show,
        invocations.why,
        invocations.result,
        invocations.cancel,
        invocations.retry,
        cost.cost,
        approvals.approve,
        approvals.deny,
    ),
    _MACHINES: (
        top.top,
        logs.logs,
        nodes.nodes,
        nodes.pools,
        nodes.queues,
        nodes.pause,
        nodes.resume,
        objectives.objectives,
        console.console,
    ),
    _DOORS: (keys.whoami,),
    _HERE: (fleet.up, fleet.demo, fleet.doctor, fleet.serve, flower.flower, fleet.mcp, ca.ca, fleet.version),
}


def build() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name=NAME,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for panel, commands in _COMMANDS.items():
        for command in commands:
            app.command(rich_help_panel=panel)(command)
    app.add_typer(approvals.approvals, name="approvals", rich_help_panel=_CALLS)
    app.add_typer(dead.dead, name="dead", rich_help_panel=_CALLS)
    app.add_typer(nodes.node, name="node", rich_help_panel=_MACHINES)
    app.add_typer(projects.project, name="project", rich_help_panel=_CALLS)
    app.add_typer(ledger.ledger, name="ledger", rich_help_panel=_HERE)
    app.add_typer(secrets.secrets, name="secrets", rich_help_panel=_MACHINES)
    app.add_typer(scale.scale, name="scale", rich_help_panel=_MACHINES)
    app.add_typer(keys.keys, name="keys", rich_help_panel=_DOORS)
    app.add_typer(audit.audit, name="audit", rich_help_panel=_DOORS)
    app.add_typer(guard.guard, name="guard", rich_help_panel=_DOORS)
    app.add_typer(policy.policy, name="policy", rich_help_panel=_DOORS)
    app.add_typer(oauth.oauth, name="oauth", rich_help_panel=_DOORS)
    app.add_typer(redis.redis, name="redis", rich_help_panel=_MACHINES)
    return app


def _print_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        fleet.version(ctx)
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """A fleet of machines as one MCP server: call its tools, see where they ran and why."""


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    out: TextIO,
    err: TextIO,
    stdin: BinaryIO,
    transport: httpx.BaseTransport | None = None,
) -> int:
    """One command; returns its exit status and raises nothing that was foreseen."""
    screen = Screen(out, err, environ=environ)
    try:
        desk = Desk(settings=read_settings(environ), screen=screen, stdin=stdin, transport=transport)
        command = typer.main.get_command(build())
        status = command.main(list(argv), prog_name=NAME, standalone_mode=False, obj=desk)
        return status if isinstance(status, int) else Exit.OK
    except FleetError as error:
        screen.error(error.message)
        return of_error(error)
    except ValidationError as error:
        screen.error(_first_fault(error))
        return Exit.USAGE
    except TyperException as error:
        if message := error.format_message():  # none where the help was printed instead
            screen.error(f"{_plain(message)} Try: {_try_help(error)}")
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`| head`): no error of ours, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        if error.filename is None:
            raise  # nothing that whoever typed it named: a traceback says more
        screen.error(f"cannot use {error.filename}: {error.strerror}; is it there, is there room, may you write there?")
        return Exit.FAILED


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:], environ=os.environ, out=sys.stdout, err=sys.stderr, stdin=sys.stdin.buffer))


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(step) for step in fault["loc"])
    return f"{where or error.title} is {str(fault['input'])[:80]!r}: {wanted(fault)}"


def _plain(message: str) -> str:
    """What the parser of the command line said, as a sentence, and a wrong choice as our own checks say it."""
    message = message.replace("Value error, ", "")
    found = _CHOICE.fullmatch(message)
    if found is not None:
        *most, last = found["known"].replace("'", "").split(", ")
        return f"{found['name']} is {found['given']}: write {' or '.join([', '.join(most), last] if most else [last])}."
    return message if message.endswith((".", "?", "!")) else f"{message}."


def _try_help(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else NAME} --help"


if __name__ == "__main__":
    main()
