"""What waits for a collector is bounded by count and by size, and each loss has its reason; nothing is lost unsaid."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from tasks.otlp import LINES_MAX_BYTES, SPANS_MAX, Otlp, OtlpTarget, open_otlp
from tasks.otlp_http import Answer
from tasks.otlp_metrics import OtlpCollector
from tasks.otlp_queue import BATCH_BYTES, BATCH_MAX, MAKE_AT, Bounded
from tasks.testing.clock import FakeClock
from tasks.testing.otlp_double import collector
from tasks.tracing import Span

SPAN = Span("x", "ab" * 16, "cd" * 8, None, 1.0, 2.0)
WAIT_S = 60.0


class Taken:
    """A collector that takes all, or so many of each batch."""

    def __init__(self, *, lost: int | None = 0, why: str = "refused") -> None:
        self.batches: list[Sequence[bytes]] = []
        self._lost, self._why = lost, why

    def __call__(self, entries: Sequence[bytes], count: int) -> Answer:
        self.batches.append(entries)
        lost = count if self._lost is None else self._lost
        return Answer(lost, self._why if lost else "", "HTTP 500" if lost else "")


def one(entry: bytes = b"x") -> Iterable[bytes]:
    """What makes an entry."""
    return (entry,)


def otlp(spans: Taken, lines: Taken | None = None, clock: FakeClock | None = None) -> Otlp:
    """Without its thread."""
    return Otlp(spans, lines or Taken(), ratio=1.0, clock=clock or FakeClock())


def test_a_full_queue_drops_and_counts() -> None:
    """It never blocks whoever puts; what a collector refuses is counted too, and not tried for ever."""
    queue = Bounded(Taken(lost=100), most=BATCH_MAX + 200)
    for _ in range(BATCH_MAX + 205):
        queue.put(one)
    assert queue.lost == {"full": 5}
    queue.flush()
    assert queue.lost == {"full": 5, "refused": 200}
    assert (queue.dropped, queue.sent) == (205, BATCH_MAX)


def test_what_is_made_later_is_bounded_by_what_it_makes() -> None:
    """A call with 50 tries is 101 spans, and is counted as that when it is lost."""
    queue = Bounded(Taken(), most=250)
    for _ in range(3):
        queue.put(lambda: [b"x"] * 101, 101, 101)
    assert queue.lost == {"full": 101}
    queue.flush()
    assert queue.sent == 202


def test_lines_are_bounded_by_their_size() -> None:
    """Ten thousand tracebacks are not held in memory because a collector is away."""
    sender = otlp(Taken(), Taken())
    for number in range(100):
        sender.line({"event": "said", "number": number}, 1_000_000)
    assert sender.lines.lost == {"full": 100 - LINES_MAX_BYTES // 1_000_000}
    short = otlp(Taken(), Taken())
    for number in range(SPANS_MAX + 10):
        short.line({"event": "said", "number": number}, 80)
    assert short.lines.lost == {"full": 10}


def test_a_request_is_bounded_by_count_and_by_size() -> None:
    """Collectors refuse what is larger than a few MB."""
    taken = Taken()
    queue = Bounded(taken, most=10_000)
    for _ in range(BATCH_MAX + 1):
        queue.put(one)
    for _ in range(5):
        queue.put(lambda: one(b"y" * (BATCH_BYTES // 2)))
    queue.flush()
    assert len(taken.batches[0]) == BATCH_MAX
    assert max(sum(map(len, batch)) for batch in taken.batches) <= 1.5 * BATCH_BYTES
    assert queue.sent == BATCH_MAX + 6


def test_one_that_cannot_be_made_costs_itself_alone() -> None:
    """A wrong id in the ledger does not cost the other calls of that second their spans."""
    taken = Taken()
    sender = otlp(taken)
    sender.put(SPAN)
    sender.put(Span("x", "no id", "cd" * 8, None, 1.0, 2.0))

    def broken() -> Iterator[Span]:
        yield SPAN
        raise RuntimeError("token=abcdefghijkl")

    sender.put_later(3, broken)
    sender.put(SPAN)
    sender.put_later(3, broken)
    with capture_logs() as lines:
        sender._flush()
    assert (sender.spans.sent, sender.spans.lost) == (2, {"unmade": 7})
    assert len(taken.batches) == 1
    assert [line["event"] for line in lines] == ["telemetry_unmade", "telemetry_unmade", "telemetry_dropped"], (
        "each kind once, with its traceback"
    )
    assert "abcdefghijkl" not in lines[-1]["detail"]


def test_losses_are_said_once_a_minute() -> None:
    """With their reasons. A collector that is away for a night does not fill the disk with lines."""
    clock = FakeClock()
    sender = otlp(Taken(lost=None), clock=clock)
    with capture_logs() as lines:
        for _ in range(150):
            sender.put(SPAN)
            sender._flush()
            clock.advance(1.0)
    assert [line["event"] for line in lines] == ["telemetry_dropped"] * 3
    assert (lines[0]["why"], lines[0]["detail"]) == (["refused"], "HTTP 500")
    assert sum(line["new"] for line in lines) == lines[-1]["spans"]


def test_what_waits_at_the_end_is_said_to_be_lost() -> None:
    """Not forgotten: neither where the collector hangs, nor within the minute of the last line about it."""
    sender = otlp(Taken())
    sender.put(SPAN)
    sender.line({"event": "said"}, 100)
    with capture_logs() as lines:
        sender.close()
    assert sender.dropped == 2
    assert [(line["event"], line["why"]) for line in lines] == [("telemetry_dropped", ["ending"])]


def test_a_batch_on_its_way_at_the_end_is_counted() -> None:
    """A collector that hangs gets so long and no more; whether it took them nobody knows."""
    going, answered = threading.Event(), threading.Event()

    def hangs(_entries: Sequence[bytes], _count: int) -> Answer:
        going.set()
        answered.wait(WAIT_S)
        return Answer(0)

    sender = Otlp(hangs, Taken(), ratio=1.0)
    sender.put_later(SPANS_MAX // 2 + 1, lambda: [SPAN])  # so many that it does not wait for its time
    sender.start()
    sender._wake.set()
    assert going.wait(WAIT_S)
    sender.close(timeout_s=0.0)
    assert sender.spans.lost == {"ending": 1}
    answered.set()
    sender._thread.join(WAIT_S)


def test_whoever_sends_is_woken_to_make_and_a_half_full_queue_is_sent_early() -> None:
    """A burst is sent before it is dropped; nobody is woken for each of it."""
    woken = list[int]()
    queue = Bounded(Taken(), most=4 * MAKE_AT, wake=lambda: woken.append(1))
    for _ in range(2 * MAKE_AT):
        queue.put(one)
    assert (len(woken), queue.is_half_full) == (2, False)
    queue.make()
    for _ in range(MAKE_AT):
        queue.put(one)
    assert (len(woken), queue.is_half_full) == (3, True)
    queue.flush()
    assert (queue.sent, queue.is_half_full) == (3 * MAKE_AT, False)


def test_what_is_made_waits_under_the_same_bound() -> None:
    """Bytes are memory too; and what could not be made leaves its room."""
    queue = Bounded(Taken(), most=100)
    for _ in range(10):
        queue.put(lambda: [b"x"] * 3, 10, 10)  # fewer than were announced
    queue.make()
    queue.put(one)
    assert queue.lost == {"full": 1}
    queue.flush()
    for _ in range(10):
        queue.put(list, 10, 10)
    queue.make()
    queue.put(one)
    queue.flush()
    assert (queue.lost, queue.sent) == ({"full": 1}, 31)


def test_all_threads_together_lose_no_count() -> None:
    """Lines are logged by any thread; sent, waiting and dropped are all that was put."""
    queue = Bounded(Taken(), most=500)
    threads = [threading.Thread(target=lambda: [queue.put(one) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        queue.flush()
    for thread in threads:
        thread.join()
    queue.flush()
    assert queue.sent + queue.dropped == 8000


@pytest.mark.parametrize("status", [200, 403])
def test_scrapers_see_what_was_sent_and_what_was_dropped(status: int) -> None:
    """From the first loss on as an increase: every reason is there at 0."""
    registry = CollectorRegistry()
    with collector(status) as seen:
        sender = open_otlp(OtlpTarget(seen.url, "s", "i", "v"))
        registry.register(OtlpCollector(sender))
        first = generate_latest(registry).decode()
        assert first.count("mcpfleet_telemetry_dropped_total{") == 14
        assert 'mcpfleet_telemetry_dropped_total{signal="lines",why="refused"} 0.0' in first
        sender.put_later(2, lambda: [SPAN, SPAN])
        sender.line({"event": "said"}, 10)
        sender._flush()
        sender.close()
    text = generate_latest(registry).decode()
    number = "2.0" if status == 403 else "0.0"
    assert f'mcpfleet_telemetry_dropped_total{{signal="spans",why="refused"}} {number}' in text
    assert f'mcpfleet_telemetry_sent_total{{signal="spans"}} {2.0 - float(number)}' in text
    assert (len(seen.spans), len(seen.lines)) == ((2, 1) if status == 200 else (0, 0))
