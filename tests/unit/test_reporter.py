"""What a node writes to its stream while nobody reads it, and when somebody does again."""

from __future__ import annotations

import orjson
import pytest

from tasks.ledger_events import Finished, pack
from tasks.outcome import Outcome
from tasks.testing.clock import FakeClock
from worker import reporter as reporter_module
from worker.reporter import RESEND_CAP_S, RESEND_S, Reporter

REF = ("i1", 1)
EVENT = pack([Finished(*REF, 2.0, 1.0, Outcome("succeeded", result_json='{"content":[]}'))])
HOUR_S = 3600


class Stream:
    """A Redis that keeps the newest entries."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.writes = 0

    async def execute_command(self, *words: bytes | str) -> None:
        """XADD."""
        assert words[:2] == ("XADD", "s")
        self.writes += 1
        self.entries.append(bytes(words[-1]))  # type: ignore[arg-type]
        if "MAXLEN" in words:
            del self.entries[: -int(words[words.index("MAXLEN") + 1])]


class Desk:
    """One reporter, second by second."""

    def __init__(self) -> None:
        self.stream, self.clock, self.is_heard = Stream(), FakeClock(), True
        self.reporter = Reporter(self.stream, "s", self.clock, lambda: self.is_heard)
        self.reporter.finished(REF, EVENT)

    async def writes_in(self, seconds: float) -> int:
        """How many entries are written meanwhile."""
        before = self.stream.writes
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.reporter._resend(older_than_s=RESEND_S)
            await self.reporter.flush()
        return self.stream.writes - before


async def test_what_is_not_acknowledged_is_sent_again_ever_more_seldom() -> None:
    """The ledger is down for an hour: one outcome becomes sixty entries and not seven hundred, and never none."""
    desk = Desk()
    assert await desk.writes_in(RESEND_S) == 2  # once, and again
    assert await desk.writes_in(RESEND_S * 2 - 1) == 0
    assert await desk.writes_in(1) == 1
    assert await desk.writes_in(HOUR_S) <= HOUR_S / RESEND_CAP_S + 2
    assert await desk.writes_in(RESEND_CAP_S) == 1


async def test_nothing_is_sent_again_while_the_orchestrator_is_away() -> None:
    """Nobody reads: it would only fill Redis. When it is back, it has the usual time to answer what is there."""
    desk = Desk()
    desk.is_heard = False
    assert await desk.writes_in(HOUR_S) == 1  # the outcome itself
    desk.is_heard = True
    assert await desk.writes_in(RESEND_S) == 0
    assert await desk.writes_in(2) == 1


async def test_an_answer_makes_it_prompt_again() -> None:
    """What is lost after a long outage is sent again as soon as ever."""
    desk = Desk()
    await desk.writes_in(HOUR_S)
    desk.reporter.settled(REF)
    desk.reporter.finished(("i2", 1), EVENT)
    assert await desk.writes_in(RESEND_S + 1) == 2


async def test_the_stream_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress of long calls that nobody reads: the newest entries stay, whatever their number and size."""
    monkeypatch.setattr(reporter_module, "STREAM_BYTES_MAX", 10 * len(EVENT))
    desk = Desk()
    for number in range(100):
        desk.reporter.finished((f"i{number}", 1), EVENT)
        await desk.reporter.flush()
    assert sum(map(len, desk.stream.entries)) <= 10 * len(EVENT)
    assert len(desk.stream.entries) >= 5
    assert orjson.loads(desk.stream.entries[-1])
