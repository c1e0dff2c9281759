"""Prometheus metrics of calls. Each is incremented here and nowhere else.

Names `mcp_*` are the user's; labels are bounded: tools and pools of this fleet, constant words, and the first so many
of each (tasks/labels.py). Waits and durations carry exemplars with the trace they are of.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from orchestrator.happenings import (
    Accepted,
    AttemptEnded,
    AttemptReleased,
    AttemptRunning,
    Ended,
    EntryRefused,
    Happening,
    ModelsUsed,
    Progressed,
)
from orchestrator.observability.calls import LiveCalls
from orchestrator.observability.spend import SpendCounters
from tasks.invocation import State
from tasks.labels import TOOLS_MAX, WORDS_MAX, Bounded

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """A listener of `Happenings`."""

    def __init__(self, registry: CollectorRegistry, calls: LiveCalls) -> None:
        self._calls, self._tools, self._pools = calls, Bounded(TOOLS_MAX), Bounded(WORDS_MAX)
        self._codes, self._endings, self._words = Bounded(WORDS_MAX), Bounded(WORDS_MAX), Bounded(WORDS_MAX)
        self._requests = Counter(
            "mcp_requests_total", "Invocations that ended, by tool and how", ["tool", "state"], registry=registry
        )
        self._errors = Counter("mcp_errors_total", "Invocations that ended in an error", ["code"], registry=registry)
        self._duration = Histogram(
            "mcp_request_duration_seconds",
            "From release to end of the attempt that ended an Invocation",
            ["tool"],
            buckets=SECONDS,
            registry=registry,
        )
        self._wait = Histogram(
            "mcp_queue_wait_seconds",
            "From accepted, or due, to released",
            ["lane"],
            buckets=SECONDS,
            registry=registry,
        )
        self._accepted = Counter("mcp_accepted_total", "Invocations accepted", registry=registry)
        self._attempts = Counter("mcp_attempts_total", "Attempts that ended, by how", ["ending"], registry=registry)
        self._placements = Counter(
            "mcp_placements_total",
            "Releases by pool and the reason that decided",
            ["pool", "reason"],
            registry=registry,
        )
        self._dead = Counter("mcp_dead_letters_total", "Dead letters kept, by reason", ["reason"], registry=registry)
        self._refused = Counter(
            "mcpfleet_events_refused", "Entries of nodes' streams refused, by reason", ["why"], registry=registry
        )
        self._spent = SpendCounters(registry)

    def hear(self, happening: Happening) -> None:
        """Count it."""
        match happening:
            case Accepted():
                self._accepted.inc()
            case AttemptReleased():
                exemplar = self._calls.exemplar(happening.invocation_id)
                self._wait.labels(happening.lane.value).observe(max(0.0, happening.waited_s), exemplar)
                reason = self._words.of(deciding(happening.reasons))
                self._placements.labels(self._pools.of(happening.pool), reason).inc()
            case AttemptEnded():
                self._attempts.labels(self._endings.of(happening.ending)).inc()
            case Ended():
                self._ended(happening)
            case EntryRefused():
                self._refused.labels(happening.why).inc()
            case ModelsUsed():
                self._spent.count(happening.spent)
            case AttemptRunning() | Progressed():
                return

    def _ended(self, ended: Ended) -> None:
        tool = self._tools.of(ended.tool)
        self._requests.labels(tool, ended.state.value).inc()
        if ended.last is not None:
            took_s = max(0.0, ended.at - ended.last.released_at)
            self._duration.labels(tool).observe(took_s, self._calls.exemplar(ended.invocation_id))
        error = ended.outcome.error if ended.outcome else None
        if error is not None and ended.state is not State.CANCELLED:
            self._errors.labels(self._codes.of(error.code)).inc()
        if ended.dead_reason is not None:
            self._dead.labels(self._codes.of(ended.dead_reason)).inc()


def deciding(reasons: Iterable[str]) -> str:
    """The constant word before the colon of the deciding reason, e.g. `affinity`."""
    last = ""
    for last in reasons:
        if last.startswith("affinity:"):
            break
    word = last.partition(":")[0]
    return word if word.replace("_", "").replace(" ", "").isalpha() and len(word) < 40 else "other"  # noqa: PLR2004
