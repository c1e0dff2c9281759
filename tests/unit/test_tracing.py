"""Spans from facts: the same ids in every process, the same spans from memory and from the ledger's rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from orchestrator.happenings import Accepted, AttemptEnded, AttemptReleased, Ended, Happening
from orchestrator.observability import spans as feeds
from orchestrator.observability.spans import SpanFeed, spans_of
from tasks.client.trace import current_traceparent
from tasks.errors import NotFound, SettingsError
from tasks.invocation import Attempt, Call, Invocation, Lane, Principal, State
from tasks.otlp import read_headers
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from tasks.tracing import Span, below, is_kept, is_sampled, parent_of, read_traceparent, span_id, trace_parent_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
FAILED = ErrorInfo("flaky", "as asked", Failure.PERMANENT)


class Kept:
    """Spans as they are put."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.ratio, self.spans, self.missed = ratio, list[Span](), 0

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def put_later(self, count: int, make: Callable[[], Iterable[Span]]) -> None:
        made = list(make())
        assert len(made) <= count, "what is lost of them is counted by it"
        self.spans += made

    def lost(self, count: int) -> None:
        self.missed += count


def invocation(**call: str | None) -> Invocation:
    """Accepted at 100."""
    said = {"trace_id": TRACE, "trace_parent": f"{CALLER}-01", "project": "shop"} | call
    row = Call("probe.flaky", '{"password": "x"}', **said)  # type: ignore[arg-type]
    return Invocation("inv-1", row, Principal("me"), Lane.TOOLS, State.WAITING, accepted_at=100.0)


ATTEMPTS = (
    Attempt("inv-1", 1, "a", None, "general", Lane.TOOLS, "q.a", 101.0, 101.5, 102.0, "failed", "flaky"),
    Attempt("inv-1", 2, "b", None, "general", Lane.TOOLS, "q.b", 103.0, 103.5, 104.0, "succeeded"),
)
ENDED = replace(
    invocation(), state=State.SUCCEEDED, ended_at=104.0, outcome=Outcome("succeeded", "{}"), attempts=ATTEMPTS
)


def told(attempts: tuple[Attempt, ...] = ATTEMPTS) -> list[Happening]:
    """What is heard of it while it lives."""
    news: list[Happening] = [Accepted(invocation())]
    last = None
    for one in attempts:
        assert one.ended_at is not None
        place = {"tool": "probe.flaky", "project": "shop", "pool": one.pool, "node": one.node, "lane": one.lane}
        about = {"invocation_id": "inv-1", "fence": one.fence} | place
        news.append(AttemptReleased(**about, queue=one.queue, at=one.released_at, waited_s=1.0, reasons=()))  # type: ignore[arg-type]
        last = AttemptEnded(
            **about, to=State.WAITING if one.error_code else State.SUCCEEDED, ending=one.ending, tries=one.fence,  # type: ignore[arg-type]
            released_at=one.released_at, started_at=one.started_at, at=one.ended_at, not_before=None,
            error=FAILED if one.error_code else None,
        )  # fmt: skip
        news.append(last)
    news.append(Ended("inv-1", State.SUCCEEDED, 104.0, "probe.flaky", ENDED.outcome, last=last))
    return news


async def row(_id: str) -> Invocation:
    """The ledger's."""
    return ENDED


async def no_row(invocation_id: str) -> Invocation:
    """It is gone."""
    raise NotFound("invocation", invocation_id)


def heard(news: list[Happening], ledger: object = no_row, ratio: float = 1.0) -> tuple[SpanFeed, Kept]:
    """A feed that was told."""
    kept = Kept(ratio)
    feed = SpanFeed(kept, get=ledger, clock=FakeClock(wall_s=105.0))  # type: ignore[arg-type]
    for one in news:
        feed.hear(one)
    return feed, kept


async def test_memory_and_the_ledger_make_the_same_spans() -> None:
    """Whoever settles it, before or after a restart: each span has the same id, times and attributes."""
    live = heard(told())[1].spans
    feed, after_a_restart = heard(told()[-1:], row)
    await feed.settled()
    extra = {"accept", "settle"}  # what only the one who was there can time
    assert sorted(map(repr, after_a_restart.spans)) == sorted(repr(one) for one in live if one.name not in extra)
    assert [one.name for one in live].count("settle") == 2


async def test_a_leader_that_saw_the_second_try_alone_asks_the_ledger() -> None:
    """What it did not hear is not left out."""
    news = told()
    feed, kept = heard([news[0], *news[3:]], row)
    await feed.settled()
    fences = [one.attributes.get("mcpfleet.fence") for one in kept.spans if one.name == "attempt probe.flaky"]
    assert fences == [1, 2]


async def test_what_took_no_time_is_no_span() -> None:
    """Accepting and settling are spans of the calls for which they were slow."""
    kept = Kept()
    feed = SpanFeed(kept, get=no_row, clock=FakeClock(wall_s=100.001))
    feed.hear(Accepted(invocation()))
    assert kept.spans == []


def test_every_try_is_a_child_with_its_wait_before_it() -> None:
    """One trace: waits, tries and the whole cover its life without a gap."""
    whole, *parts = spans_of(ENDED)
    assert (whole.parent_id, whole.start_s, whole.end_s) == (CALLER, 100.0, 104.0)
    assert {one.parent_id for one in parts} == {whole.span_id}
    assert {one.trace_id for one in parts} == {TRACE}
    assert [(one.name.split()[0], one.start_s, one.end_s) for one in parts] == [
        ("wait", 100.0, 101.0), ("attempt", 101.0, 102.0), ("wait", 102.0, 103.0), ("attempt", 103.0, 104.0),
    ]  # fmt: skip
    assert [one.error for one in parts] == [None, "flaky", None, None]
    assert not any("password" in repr(one) for one in (whole, *parts))


def test_a_call_that_ends_while_it_waits_has_that_wait() -> None:
    """Cancelled, or too late: one sees that nobody took it."""
    gone = replace(ENDED, attempts=(), state=State.CANCELLED, outcome=Outcome("cancelled"))
    whole, wait = spans_of(gone)
    assert (wait.name, wait.end_s, whole.error) == ("wait", 104.0, "cancelled")


@pytest.mark.parametrize(
    ("call", "ratio", "count"),
    [
        ({}, 0.0, 9),  # its caller keeps it
        ({"trace_parent": f"{CALLER}-00"}, 1.0, 0),
        ({"trace_parent": None}, 0.0, 0),
        ({"trace_parent": None}, 1.0, 9),
        ({"trace_id": "no trace id at all"}, 1.0, 0),
    ],
)
def test_who_decides_what_is_kept(call: dict[str, str | None], ratio: float, count: int) -> None:
    """The caller, else the ratio. What is not kept costs no read of the ledger: `no_row` would be counted."""
    news = told()
    _, kept = heard([Accepted(invocation(**call)), *news[1:]], ratio=ratio)
    assert (len(kept.spans), kept.missed) == (count - 1 if count else 0, 0)


async def test_what_cannot_be_looked_up_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an error nor a queue that grows."""
    feed, kept = heard(told()[-1:], no_row)
    await feed.settled()
    assert kept.missed == 1
    monkeypatch.setattr(feeds, "LOOKUPS_MAX", 1)
    feed, kept = heard(told()[-1:] * 3, row)
    await feed.settled()
    assert kept.missed == 2


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of a million calls is the ledger's to remember."""
    monkeypatch.setattr(feeds, "KNOWN_MAX", 2)
    others = [Accepted(replace(invocation(), id=f"other-{n}")) for n in range(3)]
    news = told()
    feed, kept = heard([news[0], *others, *news[1:]], row)
    assert len(feed._known) == 2
    await feed.settled()
    assert [one.name for one in kept.spans].count("invoke probe.flaky") == 1


@given(trace=st.integers(1, 2**128 - 1), caller=st.integers(1, 2**64 - 1), flags=st.integers(0, 255))
def test_a_traceparent_is_read_as_it_was_written(trace: int, caller: int, flags: int) -> None:
    """And what is kept of it says the same."""
    found = read_traceparent(f"00-{trace:032x}-{caller:016x}-{flags:02x}")
    assert found is not None
    assert (int(found.trace_id, 16), int(found.span_id, 16), found.is_sampled) == (trace, caller, bool(flags & 1))
    assert parent_of(trace_parent_of(found)) == (found.span_id, found.is_sampled)
    assert read_traceparent(found.traceparent()) == found
    assert is_sampled(found.trace_id, trace_parent_of(found), 0.5) is found.is_sampled


@pytest.mark.parametrize(
    "junk",
    [
        None, 1, "", "00", f"ff-{TRACE}-{CALLER}-01", f"00-{'0' * 32}-{CALLER}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{CALLER}-01",
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_none(junk: object) -> None:
    """Source: W3C Trace Context, 3.2: a bad one is as if there were none."""
    assert read_traceparent(junk) is None


def test_the_next_call_of_a_chain_is_below_the_one_before() -> None:
    """With what its caller said of sampling, if it did."""
    assert parent_of(below("inv-1", "invocation", f"{CALLER}-00")) == (span_id("inv-1", "invocation"), False)
    assert parent_of(below("inv-1", "invocation", None)) == (span_id("inv-1", "invocation"), None)


@settings(max_examples=20)
@given(ratio=st.floats(0, 1))
def test_a_share_of_traces_is_kept(ratio: float) -> None:
    """By the trace id alone, so that all processes agree; about the share that was asked for."""
    kept = sum(is_kept(f"{n * (2**64 // 1000):032x}", ratio) for n in range(1000))
    assert abs(kept / 1000 - ratio) <= 0.002


def test_headers_are_read_from_a_file(tmp_path: Path) -> None:
    """A collector's key is in no environment and in no list of settings."""
    file = tmp_path / "headers"
    file.write_text("Authorization: Basic abc=\n\nx-scope: a:b\n")
    assert read_headers(file) == {"Authorization": "Basic abc=", "x-scope": "a:b"}
    file.write_text("just a key")
    with pytest.raises(SettingsError, match="line 1"):
        read_headers(file)


@pytest.mark.parametrize(
    "program", ["orchestrator.bootstrap, orchestrator.cli.main", "worker.cli, worker.process", "tasks.otlp"]
)
def test_nothing_of_the_sdk_is_loaded(program: str) -> None:
    """40 ms of CPU and 3 MB at each start, for what is written in a few lines."""
    ours = "('opentelemetry.sdk.trace', 'opentelemetry.sdk._logs', 'opentelemetry.exporter', 'opentelemetry.proto')"
    look = f"print([name for name in sys.modules if name.startswith({ours})])"
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {program}; {look}"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


def test_a_client_sends_the_span_that_is_current() -> None:
    """For whoever uses OpenTelemetry, without doing anything; for others there is none."""
    assert current_traceparent() is None
    here = SpanContext(int(TRACE, 16), int(CALLER, 16), is_remote=False, trace_flags=TraceFlags(1))
    with use_span(NonRecordingSpan(here)):
        assert current_traceparent() == f"00-{TRACE}-{CALLER}-01"
