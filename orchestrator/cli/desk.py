"""What every command is given: settings, the two streams, and a way to the fleet.

Put into typer's context by `main.run`; a test passes its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, BinaryIO

import httpx
import typer

from orchestrator.cli import shortid
from orchestrator.cli.api import Api, listed
from orchestrator.cli.screen import Screen
from orchestrator.cli.settings import CliSettings, Target, find_target
from tasks.wire import InvocationView

LOOK_BACK = 2000
"""Newest Invocations among which a short id is looked for."""

JsonFlag = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
SINCE = typer.Option("--since", metavar="TIME", help="7d, 12h; 2026-11-01 is local time.")
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for who has looked at it before.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="The agent is told.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="An id, or its last characters.")]
IdsArgument = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or their last characters.")]


@dataclass(slots=True)
class Desk:
    """One command's surroundings."""

    settings: CliSettings
    screen: Screen
    stdin: BinaryIO
    transport: httpx.BaseTransport | None = None
    now: Callable[[], float] = field(default=time.time)
    sleep: Callable[[float], None] = field(default=time.sleep)

    @property
    def is_keyboard(self) -> bool:
        """Whether keys can be read from standard input."""
        return self.stdin.isatty()

    def target(self, token: str | None = None) -> Target:
        """The fleet that is meant; `token` instead of the one that was set."""
        return find_target(self.settings if token is None else replace(self.settings, token=token))

    def api(self, token: str | None = None) -> Api:
        """A connection to it; close it."""
        target = self.target(token)
        return Api(target.url, target.token, self.transport)


def desk_of(ctx: typer.Context) -> Desk:
    """The desk that `main.run` put there."""
    desk = ctx.find_object(Desk)
    assert desk is not None, "main.run passes it"
    return desk


def full_id(api: Api, text: str) -> str:
    """The Invocation that is meant by `text`, looked up only if it is not a whole id."""
    return text if shortid.is_full(text) else shortid.find(text, _newest_ids(api))


def _newest_ids(api: Api) -> Iterator[str]:
    items = api.pages("/v1/invocations", InvocationView, {"limit": 500})
    return (view.id for view in listed(items, LOOK_BACK))
