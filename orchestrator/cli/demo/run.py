"""`mcpfleet demo`: a fleet in a directory of its own, the story, and nothing left behind."""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.demo.props import make_repository, page
from orchestrator.cli.demo.story import Props, tell
from orchestrator.cli.demo.teller import StoryBroke, Teller
from orchestrator.cli.durations import took
from orchestrator.cli.exits import Exit
from orchestrator.cli.screen import Screen
from orchestrator.cli.settings import CliSettings
from orchestrator.cli.up import run_fleet, show_addresses
from orchestrator.local.fleet import LocalFleet
from orchestrator.local.plan import Plan, two_pools
from orchestrator.local.servers import discover, filesystem, search_path
from orchestrator.local.statefile import FleetFile

GENERAL_NODES = 2
LOG_LINES = 5
_CLIENT = ("MCPFLEET_URL", "MCPFLEET_TOKEN", "MCPFLEET_TOKEN_FILE", "MCPFLEET_STATE_DIR")


def run_demo(settings: CliSettings, screen: Screen, *, keep: bool, fast: bool, verbose: bool) -> int:
    """Exit status: ok only if the whole story held; interrupted if it was not heard to its end."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mcpfleet-demo-", ignore_cleanup_errors=True) as name, page() as page_url:
        folder = Path(name)
        plan, props = _prepare(folder, settings.environ, page_url)
        _say_missing(screen, props)

        told: list[int] = []

        async def body(fleet: LocalFleet, file: FleetFile) -> int:
            told.append(await _story(fleet, screen, settings.environ, props, fast=fast, begun=begun))
            await _goodbye(fleet, file, screen, keep=keep and told == [Exit.OK])
            return told[0]

        status = asyncio.run(run_fleet(plan, screen, body, verbose=verbose))
        return status if told or status != Exit.OK else Exit.INTERRUPTED


def _prepare(folder: Path, environ: Mapping[str, str], page_url: str) -> tuple[Plan, Props]:
    repository = folder / "shop"
    path = search_path(environ.get("PATH", ""))
    found = discover(path)
    if "fetch" in found:
        # Its guard against addresses of the inside is right everywhere but here: the page is on this machine.
        found["fetch"] = replace(found["fetch"], args=("--allow-private-ips",))
    files = filesystem(path, folder)
    if files is not None:
        found[files.name] = files
    made = make_repository(repository)
    plan = Plan(
        state_dir=folder / "state",
        environ={
            key: value
            for key, value in environ.items()
            if not key.startswith("MCPFLEET_") or key == "MCPFLEET_REDIS_URL"
        },
        nodes=two_pools(found, general=GENERAL_NODES),
        ephemeral=True,
        scratch=folder,
    )
    return plan, Props(repository if made else None, page_url, frozenset(found))


async def _story(
    fleet: LocalFleet, screen: Screen, environ: Mapping[str, str], props: Props, *, fast: bool, begun: float
) -> int:
    over = asyncio.Event()
    ours = {key: value for key, value in environ.items() if key not in _CLIENT}
    teller = Teller(
        screen=screen,
        environ=ours | {"MCPFLEET_STATE_DIR": str(fleet.plan.state_dir)},
        run=_run_command,
        is_fast=fast,
        is_over=over.is_set,
    )
    watching = asyncio.create_task(fleet.watch())
    telling = asyncio.create_task(asyncio.to_thread(tell, teller, props))
    try:
        await asyncio.wait({watching, telling}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        telling.result()
    except StoryBroke as error:
        _show_logs(fleet, screen)
        screen.error(error.message)
        return Exit.FAILED
    finally:
        over.set()
        watching.cancel()
        # Nobody waits for the teller's thread here: what it asks for fails as soon as the fleet stops.
        telling.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.gather(watching, return_exceptions=True)
    spent = took(time.monotonic() - begun)
    screen.note(f"\n[bold green]{len(teller.kept)} promises kept[/] in {spent}, start included\n")
    return Exit.OK


async def _goodbye(fleet: LocalFleet, file: FleetFile, screen: Screen, *, keep: bool) -> None:
    await show_addresses(screen, fleet, file, is_staying=keep)
    if keep:
        screen.note("\nStill running; Ctrl-C stops all of it.")
        await fleet.watch()
    else:
        screen.note("\nAll of it stops now; [bold]mcpfleet demo --keep[/] leaves it running.")


def _run_command(words: Sequence[str], environ: Mapping[str, str], out: io.StringIO, err: io.StringIO) -> int:
    from orchestrator.cli.main import run

    return run(words, environ=environ, out=out, err=err, stdin=io.BytesIO())


def _say_missing(screen: Screen, props: Props) -> None:
    wanted = {"time", "fetch", "git"} - props.expected
    if wanted:
        screen.note(f"[yellow]![/] not installed, so not shown: {', '.join(sorted(wanted))} (make servers)")


def _show_logs(fleet: LocalFleet, screen: Screen) -> None:
    """The directory goes away with the demo, so the last lines are shown now."""
    for name, child in fleet.children.items():
        for text in child.log.tail(LOG_LINES).splitlines():
            screen.log(name, text)
