"""`mcpfleet redis acl`: the file that gives each node a Redis user of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

import typer

from orchestrator.cli.desk import Desk, desk_of
from orchestrator.cli.exits import BadInput
from orchestrator.cli.fleet import orchestrator_settings
from tasks.node import NAME_PATTERN
from tasks.queues import PREFIX
from tasks.wire import NodeView

if TYPE_CHECKING:
    from orchestrator.settings import OrchestratorSettings

redis = typer.Typer(no_args_is_help=True, help="The fleet's Redis.")
NodesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME=POOL]...", help="Nodes that are to join; those that have joined when none is named."),
]


FlowerOption = Annotated[
    Path | None,
    typer.Option("--flower", metavar="FILE", help="Add the user mcpfleet.flower; the file holds its password."),
]


@redis.callback()
def _group() -> None:
    """One command so far, under its name."""


@redis.command()
def acl(ctx: typer.Context, nodes: NodesArgument = None, flower: FlowerOption = None) -> None:
    """Print the ACL file for MCPFLEET_REDIS_ACL=file. Run it with the orchestrator's settings; keep it private."""
    from orchestrator.limits import seal_secret
    from orchestrator.pools import read_pools
    from orchestrator.redis_users import Guest, acl_file, lasting_password
    from tasks.pool import Strategy

    desk = desk_of(ctx)
    settings = orchestrator_settings(desk)
    policies = read_pools(settings.pools_file, cloud_dir=settings.cloud_dir, environ=desk.settings.environ)
    secret = seal_secret(settings)
    guests = [
        Guest(name, lasting_password(secret, name), (pool,) if policies.of(pool).strategy is Strategy.LATE else ())
        for name, pool in sorted(_named(nodes) if nodes else _joined(desk))
    ]
    word = None if flower is None else _password_in(flower)
    desk.screen.raw(acl_file(guests, orchestrator_password=_own_password(settings), flower_password=word))


def _named(nodes: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for node in nodes:
        name, _, pool = node.partition("=")
        if not (re.fullmatch(NAME_PATTERN, name) and re.fullmatch(NAME_PATTERN, pool)):
            raise BadInput(f"{node!r} is not NAME=POOL: both of a-z, 0-9 and -, at most 41 characters")
        pairs.append((name, pool))
    return pairs


def _joined(desk: Desk) -> list[tuple[str, str]]:
    with desk.api() as api:
        return [(view.name, view.pool) for view in api.pages("/v1/nodes", NodeView)]


def _password_in(file: Path) -> str:
    try:
        word = file.read_text().strip()
    except OSError as error:
        raise BadInput(f"--flower: {file} cannot be read: {error.strerror}") from error
    if not word:
        raise BadInput(f"--flower: {file} is empty; write the password of Flower's Redis user into it")
    return word


def _own_password(settings: OrchestratorSettings) -> str:
    parts = urlsplit(settings.redis_url.get_secret_value())
    who = parts.netloc.rpartition("@")[0]
    user, _, password = who.partition(":")
    if unquote(user) != PREFIX or not password:
        raise BadInput(
            f"MCPFLEET_REDIS_URL does not log in as {PREFIX!r}: the file closes the default user, so write "
            f"rediss://{PREFIX}:PASSWORD@HOST:PORT/0"
        )
    return unquote(password)
