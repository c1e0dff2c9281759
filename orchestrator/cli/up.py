"""`mcpfleet up`: the local fleet in the foreground, and what a person sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import httpx
from rich.markup import escape

from orchestrator.cli.checklist import Checklist
from orchestrator.cli.durations import took
from orchestrator.cli.exits import Exit
from orchestrator.cli.screen import Screen
from orchestrator.local.errors import ChildFailed
from orchestrator.local.fleet import LocalFleet
from orchestrator.local.plan import Plan
from orchestrator.local.statefile import FleetFile

LOGS_EVERY_S = 0.2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Body = Callable[[LocalFleet, FleetFile], Awaitable[int]]
"""What is done with a running fleet; returns the exit status."""


class StopSignals:
    """The first Ctrl-C (or SIGTERM, SIGHUP) asks to stop, the second says: now."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """While in here they do not raise."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self.asked.is_set():
            self.hurry.set()
        self.asked.set()


async def run_up(plan: Plan, screen: Screen, *, verbose: bool) -> int:
    """Start, show the addresses, stay until asked to stop, stop."""

    async def stay(fleet: LocalFleet, file: FleetFile) -> int:
        await show_addresses(screen, fleet, file)
        screen.note("\nCtrl-C stops all of it.")
        await fleet.watch()
        return Exit.OK

    return await run_fleet(plan, screen, stay, verbose=verbose)


async def run_fleet(plan: Plan, screen: Screen, body: Body, *, verbose: bool) -> int:
    """A fleet around `body`: whatever happens inside, everything is ended.

    Raises:
        AlreadyUp: nothing was started.
    """
    checklist, signals = Checklist(screen), StopSignals()
    fleet = LocalFleet(plan, checklist.report)
    fleet.claim()
    status: int = Exit.OK
    failed: ChildFailed | None = None
    with signals.caught():
        logs = asyncio.create_task(_stream_logs(fleet, screen)) if verbose else None
        try:
            status = await _until_asked(_run(fleet, checklist, screen, body), signals.asked)
        except ChildFailed as error:
            failed, status = error, Exit.FAILED
            _show_tail(screen, error)
        finally:
            if logs is not None:
                logs.cancel()
            await _stop(fleet, checklist, screen, signals)
    if failed is not None:  # last: what was stopped for it is no good news
        screen.error(failed.message)
    return status


async def _run(fleet: LocalFleet, checklist: Checklist, screen: Screen, body: Body) -> int:
    begun = time.monotonic()
    with checklist.shown():
        file = await fleet.start()
    screen.note(f"[green]✓[/] up in {took(time.monotonic() - begun)}\n")
    return await body(fleet, file)


async def _until_asked(work: Awaitable[int], asked: asyncio.Event) -> int:
    task, wait = asyncio.ensure_future(work), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait({task, wait}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Exit.OK
    finally:
        for each in (task, wait):
            each.cancel()
        await asyncio.gather(task, wait, return_exceptions=True)


async def _stop(fleet: LocalFleet, checklist: Checklist, screen: Screen, signals: StopSignals) -> None:
    begun = time.monotonic()
    with checklist.shown():
        killed = await fleet.stop(signals.hurry)
    if killed:
        screen.note(f"[yellow]![/] {', '.join(killed)} did not end in time and had to be killed")
    kept = "" if fleet.plan.ephemeral else f"; the ledger stays in {escape(home(fleet.plan.state_dir))}"
    screen.note(f"[green]✓[/] stopped in {took(time.monotonic() - begun)}, nothing left running{kept}")


async def show_addresses(screen: Screen, fleet: LocalFleet, file: FleetFile, *, is_staying: bool = True) -> None:
    """Where everything is, and what to type next."""
    line = screen.line
    if not is_staying:
        line("What a fleet has; this one until now:")
    line(f"MCP endpoint  {file.mcp_url}")
    line(f"HTTP API      {file.url}/v1   (described at /openapi.json)")
    line(f"Console       {file.url}/console")
    line(f"Metrics       {file.metrics_url}")
    if file.flower_url:
        line(f"Flower        {file.flower_url}")
    line(f"Token         {home(fleet.plan.state_dir)}/fleet.json")
    line(f"Logs          {home(fleet.logs_dir)}/")
    line()
    line("Next, in another terminal:" if is_staying else "Next:")
    for words in what_next(fleet.plan.state_dir if is_staying else None, await tool_names(file)):
        line(f"  {words}")
    if fleet.plan.machines is not None:
        line(f"  mcpfleet scale    # nodes of {fleet.plan.machines.pool} come and go with the load")


async def tool_names(file: FleetFile) -> list[str]:
    """What can be called now; empty when that cannot be said."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
        try:
            answer = await http.get(f"{file.url}/v1/tools", headers={"Authorization": f"Bearer {file.token}"})
            form = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return []
    return [item["name"] for item in (form["items"] if isinstance(form, dict) else form)]


def what_next(state_dir: Path | None, tools: Sequence[str]) -> list[str]:
    """Commands that work as they stand; without a state directory the first one makes a fleet."""
    if "time.get_current_time" in tools:
        call = "mcpfleet call time.get_current_time timezone=Europe/Berlin"
    else:
        call = "mcpfleet call probe.echo hello=world"
    default = Path.home() / ".local" / "state" / "mcpfleet"
    if state_dir is None:
        first = ["mcpfleet up        # to stay; the rest in another terminal"]
    else:
        first = [] if state_dir == default else [f"export MCPFLEET_STATE_DIR={state_dir}"]
    return [*first, "mcpfleet tools", call, "mcpfleet ps --all", "claude mcp add fleet -- mcpfleet mcp"]


def home(path: Path) -> str:
    """With `~` where it is below the home directory."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


async def _stream_logs(fleet: LocalFleet, screen: Screen) -> None:
    while True:
        await asyncio.sleep(LOGS_EVERY_S)
        for name, child in fleet.children.items():
            for text in child.log.new_lines():
                screen.log(name, text)


def _show_tail(screen: Screen, error: ChildFailed) -> None:
    for text in error.tail.splitlines():
        screen.log(error.name, text)
