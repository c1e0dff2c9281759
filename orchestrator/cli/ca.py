"""`mcpfleet ca`: the roots that nodes and people check the fleet's doors against."""

from __future__ import annotations

import typer

from orchestrator.cli.desk import JsonFlag, desk_of
from orchestrator.cli.exits import BadInput
from orchestrator.cli.fleet import orchestrator_settings


def ca(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Print the fleet's root certificate, for MCPFLEET_NODE_CA. Run it with the orchestrator's settings.

    While MCPFLEET_POOL_SECRET_EARLIER is set there are two: the fleet's own first, then the one before.
    """
    from orchestrator.tls_doors import authority_for
    from tasks.clock import SystemClock

    desk = desk_of(ctx)
    authority = authority_for(orchestrator_settings(desk), SystemClock())
    if authority is None:
        raise BadInput("MCPFLEET_TLS is off: this fleet has no authority; set it, and MCPFLEET_POOL_SECRET")
    if as_json:
        before = None if authority.earlier is None else authority.earlier.key_id
        desk.screen.json(
            {"root_pem": authority.roots_pem, "key_sha256": authority.key_id, "earlier_key_sha256": before}
        )
    else:
        desk.screen.raw(authority.roots_pem)
