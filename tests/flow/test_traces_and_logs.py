"""One call is one trace, across processes and tries; and every process's lines have one form.

A real fleet as `mcpfleet up` starts it, with a collector on loopback that decodes what it gets.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from orchestrator.testing.local import Local, mcpfleet, until, upped
from tasks.client import Fleet
from tasks.testing.otlp_double import Collector, SeenSpan, collector
from tasks.tracing import read_traceparent, span_id

SEEN_WITHIN_S = 60.0
ECHO = ("invoke probe.echo", "wait", "attempt probe.echo", "process probe.echo", "tools/call echo")
SCHEMA = json.loads(files("tasks").joinpath("log_schema.json").read_text())


@dataclass(frozen=True)
class Watched:
    """A fleet, and who collects its telemetry."""

    local: Local
    collector: Collector

    def drops(self) -> bool:
        """Whether the orchestrator has said that it drops spans."""
        return "telemetry_dropped" in (self.local.state_dir / "logs" / "orchestrator.log").read_text()

    def client(self) -> Fleet:
        """Of its HTTP door."""
        return Fleet(self.local.url, self.local.token)

    def whole(self, trace_id: str, *names: str) -> list[SeenSpan]:
        """The spans of a trace, once those of these names have come; the slow ones of `accept` and `settle` may too."""

        def came() -> bool:
            return not Counter(names) - Counter(span.name for span in self.collector.trace(trace_id))

        until(came, SEEN_WITHIN_S, f"{names} of {trace_id}")
        return self.collector.trace(trace_id)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A fleet that was told of a collector once, in the environment of `mcpfleet up`."""
    with collector() as seen:
        settings = {
            "MCPFLEET_OTLP_ENDPOINT": seen.url,
            "MCPFLEET_LOG_OTLP": "true",
            "MCPFLEET_TRACE_URL": "http://traces.invalid/trace/{trace_id}",
            "MCPFLEET_RETRY_FIRST_WAIT_S": "0.05",
        }
        folder = tmp_path_factory.mktemp("watched")
        with upped(folder, "--nodes", "1", environ=os.environ, settings=settings) as local:
            yield Watched(local, seen)


def test_a_call_that_is_tried_twice_is_one_trace(watched: Watched) -> None:
    """The caller's trace goes on in the orchestrator and in the node; each try is a span with its number."""
    parent = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    trace = read_traceparent(parent)
    assert trace is not None
    call = {"tool": "probe.flaky", "arguments": {"key": parent, "times": 1}, "requires": ["build"], "project": "shop"}
    headers = {"Authorization": f"Bearer {watched.local.token}", "traceparent": parent}
    answer = httpx.post(f"{watched.local.url}/v1/invocations?wait=50", json=call, headers=headers, timeout=90).json()
    assert (answer["state"], answer["trace_id"], answer["fence"]) == ("succeeded", trace.trace_id, 2)

    parts = ("wait", "attempt probe.flaky", "process probe.flaky", "tools/call flaky")
    spans = watched.whole(trace.trace_id, "invoke probe.flaky", *parts, *parts)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "no span came twice"
    root = by_id[span_id(answer["id"], "invocation")]
    assert (root.parent_id, root.name, root.service) == (trace.span_id, "invoke probe.flaky", "mcpfleet-orchestrator")
    assert root.attributes["mcpfleet.project"] == "shop"
    assert not root.is_error
    for fence in (1, 2):
        attempt = by_id[span_id(answer["id"], fence, "attempt")]
        assert (attempt.parent_id, attempt.attributes["mcpfleet.fence"]) == (root.span_id, fence)
        assert (attempt.attributes["mcpfleet.node"], attempt.attributes["mcpfleet.pool"]) == ("builders-1", "builders")
        assert attempt.is_error is (fence == 1)
        assert by_id[span_id(answer["id"], fence, "wait")].parent_id == root.span_id
        process = by_id[span_id(answer["id"], fence, "process")]
        assert (process.parent_id, process.service, process.instance) == (
            attempt.span_id, "mcpfleet-worker", "builders-1",
        )  # fmt: skip
        [tool] = [span for span in spans if span.parent_id == process.span_id]
        assert (tool.name, tool.attributes["mcp.method.name"]) == ("tools/call flaky", "tools/call")
        assert tool.attributes.get("error.type") == ("flaky" if fence == 1 else None)
    assert parent not in json.dumps([span.attributes for span in spans]), "arguments are not in attributes"


def test_the_command_line_begins_the_trace_and_shows_it(watched: Watched) -> None:
    """`mcpfleet call` with a collector in its environment is the root; `show` and `why` link to the trace."""
    said = mcpfleet(watched.local.environ, "call", "probe.echo", "a=1", "--json")
    assert said.returncode == 0, said.stderr
    view = json.loads(said.stdout)
    spans = watched.whole(view["trace_id"], "call probe.echo", *ECHO)
    roots = [span for span in spans if not span.parent_id]
    assert [(span.name, span.service) for span in roots] == [("call probe.echo", "mcpfleet")]
    assert {span.service for span in spans} == {"mcpfleet", "mcpfleet-orchestrator", "mcpfleet-worker"}
    for command in ("show", "why"):
        shown = mcpfleet(watched.local.environ, command, view["id"]).stdout
        assert f"http://traces.invalid/trace/{view['trace_id']}" in shown.replace("\n", "")


def test_a_trace_that_its_caller_does_not_keep_has_no_spans(watched: Watched) -> None:
    """Parent-based: the flag of a `traceparent` decides, in every process."""
    trace_id = os.urandom(16).hex()
    assert _echoed(watched, {"traceparent": f"00-{trace_id}-{'ab' * 8}-00"}) == trace_id
    watched.whole(_echoed(watched, {}), *ECHO)
    assert watched.collector.trace(trace_id) == [], "those of a later call are there already"


def test_calls_go_on_while_the_collector_does_not(watched: Watched) -> None:
    """A collector that refuses, or never answers, costs spans and no call."""
    for trouble in ({"status": 500}, {"hangs": True}):
        for name, value in trouble.items():
            setattr(watched.collector, name, value)
        before = watched.collector.requests
        with watched.client() as fleet:
            results = fleet.map("probe.echo", [{"n": n} for n in range(20)], wait_s=60)
            assert len(results) == 20
            until(lambda: watched.collector.requests > before, SEEN_WITHIN_S, "the collector was asked")  # noqa: B023
            until(watched.drops, SEEN_WITHIN_S, "the orchestrator says how many it dropped")
            assert len(fleet.map("probe.echo", [{"n": n} for n in range(20)], wait_s=60)) == 20
    watched.collector.status, watched.collector.hangs = 200, False
    watched.collector.ending.set()


def test_every_line_of_every_process_has_the_form(watched: Watched) -> None:
    """What docs/logs.md says of the orchestrator, the nodes and Flower is so, for each line that they wrote."""
    folder = watched.local.state_dir / "logs"
    logs = {name: _lines(folder / f"{name}.log") for name in ("orchestrator", "flower", "general-1", "builders-1")}
    check = jsonschema.Draft202012Validator(SCHEMA)
    for name, lines in logs.items():
        assert lines, f"{name} said nothing"
        wrong = [(line, error.message) for line in lines for error in check.iter_errors(line)]
        assert not wrong, f"{name}: {wrong[0]}"
        assert lines[0]["event"] == "started"
    assert {line["service"] for lines in logs.values() for line in lines} == {
        "mcpfleet-orchestrator", "mcpfleet-worker", "mcpfleet-flower",
    }  # fmt: skip
    text = json.dumps(logs)
    assert watched.local.token not in text
    assert not re.search(r"redis://[^/]*:[^\[][^/]*@", text), "no password of an address"


def test_lines_come_by_otlp_too(watched: Watched) -> None:
    """The same events reach the collector, with their fields."""
    until(lambda: _collected(watched.collector, "node_joined"), SEEN_WITHIN_S, "a line of the orchestrator")
    until(lambda: _collected(watched.collector, "joined"), SEEN_WITHIN_S, "a line of a node")
    [line, *_] = [one for one in watched.collector.lines if one.event == "node_joined"]
    assert (line.service, line.attributes["logger"]) == ("mcpfleet-orchestrator", "mcpfleet.registry")


def _echoed(watched: Watched, headers: dict[str, str]) -> str:
    """The trace id of a call that has ended."""
    known = {"Authorization": f"Bearer {watched.local.token}"} | headers
    call = {"tool": "probe.echo", "arguments": {}}
    answer = httpx.post(f"{watched.local.url}/v1/invocations?wait=50", json=call, headers=known, timeout=90).json()
    assert answer["state"] == "succeeded"
    return str(answer["trace_id"])


def _collected(seen: Collector, event: str) -> bool:
    return any(one.event == event for one in list(seen.lines))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
