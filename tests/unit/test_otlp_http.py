"""A collector may redirect, ask for patience, answer garbage or take half: each loss is counted, and no key is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tasks.errors import SettingsError
from tasks.otlp import OtlpTarget, base_url, open_otlp, read_headers
from tasks.otlp_http import ANSWER_MAX_BYTES, EXPORT_S, Answer, Sender, rejected_in
from tasks.testing.clock import FakeClock

KEY = {"X-Collector-Key": "only for the collector"}
Said = tuple[int, dict[str, str], bytes]


class Odd:
    """A server that answers as it is told, and keeps what it was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Said] = []
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []


@contextmanager
def odd(*answers: Said) -> Iterator[Odd]:
    """One on loopback; the last answer is said for ever."""
    told = Odd()
    told.answers = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """As told."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.seen.append(("POST", self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, headers, said = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(said))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def do_GET(self) -> None:
            """Where a redirect that is followed would come."""
            told.seen.append(("GET", self.path, {k.lower(): v for k, v in self.headers.items()}, b""))
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


class Pauses:
    """Waits by a clock of its own."""

    def __init__(self, *, ends_after: int = 99) -> None:
        self.clock, self.slept = FakeClock(), list[float]()
        self._ends_after = ends_after

    def __call__(self, timeout: float) -> bool:
        self.slept.append(timeout)
        self.clock.advance(timeout)
        return len(self.slept) >= self._ends_after


def send(url: str, pauses: Pauses | None = None, body: bytes = b"batch", *, is_gzipped: bool = False) -> Answer:
    """One batch of ten."""
    pauses = pauses or Pauses()
    sender = Sender(f"{url}/v1/traces", KEY, wait=pauses, clock=pauses.clock, draw=lambda: 0.0, is_gzipped=is_gzipped)
    try:
        return sender.send(body, 10)
    finally:
        sender.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """Whoever answers for the collector's name must not learn its key for somebody else, nor send us about the net."""
    with odd((200, {}, b"")) as elsewhere, odd((status, {"Location": f"{elsewhere.url}/v1/traces"}, b"")) as first:
        answer = send(first.url)
        assert (answer.lost, answer.why, answer.detail) == (10, "redirected", f"HTTP {status}")
        assert [one[0] for one in first.seen] == ["POST"]
        assert first.seen[0][2]["x-collector-key"] == KEY["X-Collector-Key"]
        assert elsewhere.seen == []


def test_what_a_collector_took_in_part_is_counted_in_part() -> None:
    """It says so inside a 200; source: OTLP, partial success."""
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans = 3
    said.partial_success.error_message = "too old"
    with odd((200, {}, said.SerializeToString())) as collector:
        assert send(collector.url)[:2] == (3, "partly")
    said.partial_success.rejected_spans = 1 << 40
    assert rejected_in(said.SerializeToString()) == 1 << 40
    with odd((200, {}, said.SerializeToString())) as collector:
        assert send(collector.url).lost == 10, "never more than were sent"


@given(st.binary(max_size=64))
def test_an_answer_of_garbage_is_no_answer(said: bytes) -> None:
    """Whatever stands at that address."""
    assert rejected_in(said) >= 0


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"\x0a\xff\xff\xff\xff\x0f", b"x" * (2 * ANSWER_MAX_BYTES)])
def test_a_success_with_a_strange_body_is_a_success(body: bytes) -> None:
    """A proxy may answer with a page; so much of it is read and no more."""
    with odd((200, {}, body)) as collector:
        assert send(collector.url) == Answer(0, "", "HTTP 200")


def test_a_collector_that_asks_for_patience_is_asked_again() -> None:
    """429 and 503, after the pause that it names or ours; the same bytes."""
    pauses = Pauses()
    with odd((429, {"Retry-After": "2"}, b""), (503, {}, b""), (200, {}, b"")) as collector:
        assert send(collector.url, pauses).lost == 0
        assert [one[3] for one in collector.seen] == [b"batch"] * 3
    assert pauses.slept == [2.0, 0.5]


@pytest.mark.parametrize("after", ["3600", "9" * 400, "tomorrow", "-1"])
def test_patience_ends_with_the_time_of_a_batch(after: str) -> None:
    """What waits behind it is sent or dropped then."""
    pauses = Pauses()
    with odd((503, {"Retry-After": after}, b"")) as collector:
        assert send(collector.url, pauses)[:2] == (10, "refused")
    assert sum(pauses.slept) < EXPORT_S


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_a_refusal_is_final(status: int) -> None:
    """Asking again would be refused again. Source: OTLP, retryable response codes."""
    with odd((status, {}, b"your key was: abc")) as collector:
        assert send(collector.url) == Answer(10, "refused", f"HTTP {status}")
        assert len(collector.seen) == 1


def test_nobody_waits_for_a_collector_at_the_end() -> None:
    """A process that ends asks once more at most."""
    pauses = Pauses(ends_after=1)
    with odd((503, {}, b"")) as collector:
        assert send(collector.url, pauses).lost == 10
        assert len(collector.seen) == 1


def test_a_collector_that_is_away_costs_the_batch() -> None:
    """After tries; the reason is a word, and no text that may hold the address."""
    with odd((200, {}, b"")) as collector:
        url = collector.url
    answer = send(url)
    assert (answer.lost, answer.why, answer.detail) == (10, "unreachable", "ConnectError")


def test_what_is_sent_can_be_compressed() -> None:
    """For a collector far away."""
    with odd((200, {}, b"")) as collector:
        send(collector.url, body=b"x" * 10_000, is_gzipped=True)
        _, _, headers, body = collector.seen[0]
    assert headers["content-encoding"] == "gzip"
    assert len(body) < 200


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://user:hunter2@collector:4318",
        "http://hunter2@collector:4318",
        "ftp://hunter2.invalid",
        "http://collector:4318/?key=hunter2",
        "http://collector:hunter2",
        "http://",
        "https://[::1",
    ],
)
def test_an_endpoint_that_is_none_stops_the_start(endpoint: str) -> None:
    """Secrets do not belong into an address; what it holds is not repeated."""
    with pytest.raises(SettingsError) as refused:
        base_url(endpoint)
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    "text", ["just a key hunter2", ": hunter2", "a b: hunter2", "key: hunter2\x00", "key: hunter2é"]
)
def test_a_header_that_cannot_be_sent_stops_the_start(tmp_path: Path, text: str) -> None:
    """And not each batch, for ever, in silence."""
    file = tmp_path / "headers"
    file.write_text(f"fine: yes\n{text}\n", newline="")
    with pytest.raises(SettingsError, match="line 2") as refused:
        read_headers(file)
    assert "hunter2" not in refused.value.message


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    """With the name of the file."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"ca\.pem"):
        open_otlp(OtlpTarget("https://collector.invalid", "s", "i", "v", ca_file=file))
