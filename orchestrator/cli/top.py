"""`mcpfleet top`: the fleet on one screen, drawn again every second.

The API is asked by a thread, so that keys answer while the orchestrator does not. rich draws; a framework for
terminals would bring more than four tables need.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from orchestrator.cli.api import Api
from orchestrator.cli.desk import Desk, JsonFlag, desk_of
from orchestrator.cli.exits import Exit
from orchestrator.cli.top_frame import Frame, gather
from orchestrator.cli.top_screen import Look, draw, pressed, rows_of
from tasks.errors import FleetError

KEY_S = 0.25
PIPED_COLUMNS = 120
SILENT_S = 5.0
"""A frame that is older than this, and than three refreshes, is of the past."""

EveryOption = Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, max=3600, help="How often.")]
OnceFlag = Annotated[bool, typer.Option("--once", help="One frame, then end; also where this is no terminal.")]


def top(ctx: typer.Context, *, every: EveryOption = 1.0, once: OnceFlag = False, as_json: JsonFlag = False) -> int:
    """Watch nodes, queues and calls; with --json one object per refresh."""
    desk = desk_of(ctx)
    with desk.api() as api:
        if as_json:
            return _stream(desk, api, every, once=once)
        if once or not desk.screen.is_person or not desk.is_keyboard:
            _print(desk, gather(api, desk.now))
            return Exit.OK
        return _watch(desk, api, every)


def _stream(desk: Desk, api: Api, every: float, *, once: bool) -> int:
    while True:
        desk.screen.json_line(gather(api, desk.now))
        if once:
            return Exit.OK
        desk.sleep(every)


def _print(desk: Desk, frame: Frame) -> None:
    width = desk.screen.out.width if desk.screen.is_person else max(desk.screen.out.width, PIPED_COLUMNS)
    for line in draw(frame, Look(), width=width, height=None):
        if desk.screen.is_person:
            desk.screen.show(line)
        else:
            desk.screen.line(line.plain.rstrip())


def _watch(desk: Desk, api: Api, every: float) -> int:
    from orchestrator.cli.top_keys import keys

    source = _Source(api, desk, every)
    source.refresh()  # a first frame, or the error that there is none
    picture = _Picture(source)
    with keys(desk.stdin.fileno()) as keyboard, source.running(), _whole_screen(desk, picture) as live:
        while True:
            live.refresh()
            key = keyboard.pressed(KEY_S)
            look = picture.look if key is None else pressed(picture.look, key, picture.rows())
            if look is None:
                return Exit.OK
            picture.look = look


@contextlib.contextmanager
def _whole_screen(desk: Desk, picture: _Picture) -> Iterator[Live]:
    """The terminal's other screen; what was there before comes back, also when Ctrl-C comes while it begins."""
    live = Live(picture, console=desk.screen.out, screen=True, auto_refresh=False)
    try:
        live.start()
        yield live
    finally:
        try:
            live.stop()
        finally:
            desk.screen.out.set_alt_screen(False)
            desk.screen.out.show_cursor()


class _Picture:
    """What is drawn: the newest frame, as the person looks at it, in the size that the terminal has now."""

    def __init__(self, source: _Source) -> None:
        self._source, self.look = source, Look()

    def rows(self) -> int:
        """How many there are to choose from."""
        return len(rows_of(self._source.frame, self.look.sort))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        since, why = self._source.away()
        look = replace(self.look, since=since, why=why)
        height = options.height or options.size.height
        lines = draw(self._source.frame, look, width=options.max_width, height=height)
        yield Text("\n").join(lines)


class _Source:
    """The newest frame, kept while the orchestrator is away."""

    frame: Frame

    def __init__(self, api: Api, desk: Desk, every: float) -> None:
        self._api, self._desk, self._every = api, desk, every
        self._ending = threading.Event()
        self._since: float | None = None
        self._why = ""

    def refresh(self) -> None:
        """Ask once. Raises FleetError."""
        self.frame = gather(self._api, self._desk.now)
        self._since, self._why = None, ""

    def away(self) -> tuple[float | None, str]:
        """Since when there was no answer, and why; None: there is one. Silence is none, long before it is an error."""
        if self._since is None and self._desk.now() - self.frame.at > max(SILENT_S, 3 * self._every):
            return self.frame.at, "no answer yet"
        return self._since, self._why

    def running(self) -> _Running:
        """Ask again and again, in a thread, until the end of the block."""
        return _Running(threading.Thread(target=self._run, name="mcpfleet-top", daemon=True), self._ending)

    def try_again(self) -> None:
        """Ask, and remember why there was no answer."""
        try:
            self.refresh()
        except FleetError as error:
            self._since, self._why = self._since or self.frame.at, error.message
        except ValueError as error:  # an orchestrator of another version
            self._since, self._why = self._since or self.frame.at, f"its answer is not understood: {error}"

    def _run(self) -> None:
        while not self._ending.wait(self._every):
            self.try_again()


class _Running:
    """A thread for the time of a block."""

    def __init__(self, thread: threading.Thread, ending: threading.Event) -> None:
        self._thread, self._ending = thread, ending

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
