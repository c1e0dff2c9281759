"""Runs the commands of the story as a person would type them, shows them, and checks what came out.

Every step goes through `main.run`: what the demo shows is what the commands do. Refuses to go on after
a promise that did not hold.
"""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel
from rich.markup import escape
from rich.rule import Rule
from rich.text import Text

from orchestrator.cli.screen import Screen
from tasks.errors import FleetError
from tasks.wire import InvocationView

M = TypeVar("M", bound=BaseModel)
POLL_S = 0.05
READ_S = 0.6
"""Between two steps, so that a person can follow; none with `--fast`."""

Run = Callable[[Sequence[str], Mapping[str, str], io.StringIO, io.StringIO], int]


class StoryBroke(FleetError):
    """What the demo shows did not hold."""

    code = "story_broke"


class Interrupted(Exception):
    """Ctrl-C: tell no further."""


@dataclass(slots=True)
class Teller:
    """Tells one story on one screen."""

    screen: Screen
    environ: Mapping[str, str]
    run: Run
    is_fast: bool
    is_over: Callable[[], bool]
    kept: list[str] = field(default_factory=list)
    """The promises that held."""

    def chapter(self, title: str) -> None:
        """A heading."""
        if self.kept and not self.is_fast:
            time.sleep(READ_S)
        self.check_on()
        self.screen.show("")
        self.screen.show(Rule(Text(title, "bold cyan"), align="left", style="dim cyan"))

    def say(self, words: str) -> None:
        """A remark."""
        self.screen.show(Text(words, "dim"))

    def typed(self, *words: str) -> None:
        """The command, as it would be typed."""
        line = shlex.join(("mcpfleet", *words))
        self.screen.out.print(Text.assemble(("$ ", "dim"), (line, "bold")), soft_wrap=True)

    def promise(self, holds: bool, words: str) -> None:
        """Raises StoryBroke: it does not hold."""
        if not holds:
            raise StoryBroke(f"the demo showed something else than promised: {words}")
        self.kept.append(words)
        self.screen.show(Text.assemble(("✓ ", "green"), (words, "green")))

    def show(self, *words: str) -> int:
        """Type a command, and show what it prints to a person."""
        self.typed(*words)
        return self._run(words, is_shown=True)[0]

    def ask(self, model: type[M], *words: str) -> M:
        """The answer of a command with `--json`, not shown."""
        status, out, err = self._run((*words, "--json"), is_shown=False)
        try:
            return model.model_validate_json(out)
        except ValueError as error:
            said = err.strip() or f"status {status}"
            raise StoryBroke(f"`{shlex.join(('mcpfleet', *words))}` did not answer: {said}") from error

    def listing(self, model: type[M], *words: str) -> list[M]:
        """The same for a listing."""
        _, out, err = self._run((*words, "--json"), is_shown=False)
        try:
            return [model.model_validate(item) for item in json.loads(out)]
        except ValueError as error:
            raise StoryBroke(f"`{shlex.join(('mcpfleet', *words))}` did not answer: {err.strip()}") from error

    def call(self, *words: str) -> InvocationView:
        """Type a call; returns the whole Invocation."""
        self.typed("call", *words)
        return self.ask(InvocationView, "call", *words)

    def until(self, holds: Callable[[], bool], within_s: float, words: str) -> None:
        """Wait until it holds.

        Raises:
            StoryBroke: not within `within_s` seconds.
        """
        until = time.monotonic() + within_s
        while not holds():
            self.check_on()
            if time.monotonic() > until:
                raise StoryBroke(f"waited {within_s:g} s in vain: {words}")
            time.sleep(POLL_S)

    def check_on(self) -> None:
        """Raises Interrupted: Ctrl-C came."""
        if self.is_over():
            raise Interrupted

    def _run(self, words: Sequence[str], *, is_shown: bool) -> tuple[int, str, str]:
        self.check_on()
        out, err = io.StringIO(), io.StringIO()
        environ = {**self.environ, **self._terminal()} if is_shown else self.environ
        status = self.run(words, environ, out, err)
        if is_shown:
            for text in filter(str.strip, (out.getvalue(), err.getvalue())):
                if self.screen.is_person:
                    self.screen.show(Text.from_ansi(text.rstrip("\n")))
                else:
                    self.screen.raw(text)
        return status, out.getvalue(), err.getvalue()

    def _terminal(self) -> dict[str, str]:
        """Makes a command draw for our own terminal, though it writes into memory."""
        if not self.screen.is_person:
            return {}
        colour = {"NO_COLOR": "1"} if self.screen.out.no_color else {}
        return {"FORCE_COLOR": "1", "COLUMNS": str(self.screen.out.width), **colour}

    def quote(self, text: str, lines: int = 6) -> None:
        """Some lines of a tool's answer."""
        found = [line for line in text.splitlines() if line.strip()]
        for line in found[:lines]:
            self.screen.line(f"  {line}")
        if len(found) > lines:
            self.say(f"  … {len(found) - lines} more lines")

    def note(self, markup: str) -> None:
        """A line in rich markup."""
        self.screen.note(markup)

    def where(self, view: InvocationView) -> str:
        """`general-1`, escaped for markup."""
        return escape(view.node or "nowhere")
