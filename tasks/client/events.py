"""An Invocation's event stream, read line by line.

Source: WHATWG HTML, 9.2.6 (event stream interpretation).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from pydantic import ValidationError

from tasks.client.exchange import Core
from tasks.client.results import Progress
from tasks.errors import OrchestratorDown
from tasks.retry import delay_s
from tasks.wire import EventView


class EventReader:
    """Lines in, events out. Remembers where to go on after a broken connection."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.last_id: str | None = None
        self.is_over = False
        self._data: list[str] = []
        self._barren = 0
        self._why = "the stream ended early"

    @contextmanager
    def connection(self) -> Iterator[None]:
        """One connection; that it breaks is no error yet."""
        self._barren += 1
        try:
            yield
        except httpx.TransportError as error:
            self._why = f"{type(error).__name__}: {error}"

    def pause_s(self) -> float:
        """Seconds until the next connection.

        Raises:
            OrchestratorDown: several in a row brought no event.
        """
        if self.is_over:
            return 0.0
        if self._barren > self._core.patience.attempts:
            raise OrchestratorDown(self._core.url, self._why)
        return delay_s(max(1, self._barren), self._core.patience, self._core.draw())

    def headers(self) -> dict[str, str]:
        """For the next connection."""
        self._data = []
        accept = {"Accept": "text/event-stream"}
        return accept if self.last_id is None else {**accept, "Last-Event-ID": self.last_id}

    def feed(self, line: str) -> EventView | None:
        """One line, without its end; the event that it completes."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self.last_id = value
        elif name == "data":
            self._data.append(value)
        elif not line and self._data:
            return self._complete()
        return None

    def _complete(self) -> EventView | None:
        text, self._data = "\n".join(self._data), []
        try:
            event = EventView.model_validate_json(text)
        except ValidationError:  # of a newer orchestrator: not for us
            return None
        self.is_over, self._barren = event.kind == "ended", 0
        return event


def progress_of(event: EventView) -> Progress | None:
    """What a `progress` event says; None of other kinds."""
    if event.kind != "progress":
        return None
    data = event.data
    return Progress(float(data.get("progress", 0.0)), data.get("total"), data.get("message"))
