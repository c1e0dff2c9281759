"""`mcpfleet flower`: the Flower process, and whether it is well."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.desk import desk_of
from orchestrator.cli.exits import Exit

HealthFlag = Annotated[
    bool, typer.Option("--health", help="Ask the one that runs with these settings instead; for health checks.")
]


def flower(ctx: typer.Context, health: HealthFlag = False) -> int:
    """Run Flower behind a password; settings come from MCPFLEET_FLOWER_* variables."""
    from orchestrator.cli.ownership import require
    from orchestrator.flower.process import fault, leave, serve
    from orchestrator.flower.settings import read_flower_settings

    desk = desk_of(ctx)
    settings = read_flower_settings(desk.settings.environ)
    if health:
        why = fault(settings, desk.transport)
        if why:
            desk.screen.error(why)
        return Exit.FAILED if why else Exit.OK
    require()
    serve(settings)
    leave()
    return Exit.OK
