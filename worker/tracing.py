"""The span of an attempt on its node, from its delivery to its outcome; calls of tools are `upstreams/traced.py`'s.

Owns its name and attributes, which are OpenTelemetry's where it has any. Refuses arguments, results and the text of
errors: an error is its code. Source: OpenTelemetry, semantic conventions for messaging spans, 1.41.
"""

from __future__ import annotations

from tasks.envelope import Delivery
from tasks.outcome import Outcome
from tasks.tracing import ATTEMPT, CONSUMER, PROCESS, Span, Spans, Trace, is_kept, is_trace_id, span_id
from worker.work import Work


def trace_of(delivery: Delivery, spans: Spans | None) -> Trace | None:
    """Where the work on a delivery stands in its trace: in our span, or in the orchestrator's where we make none."""
    if delivery.trace_id is None or not is_trace_id(delivery.trace_id):
        return None
    part, sampled = PROCESS if spans is not None else ATTEMPT, delivery.is_sampled
    if sampled is None:
        sampled = spans is None or is_kept(delivery.trace_id, spans.ratio)
    return Trace(delivery.trace_id, span_id(delivery.invocation, delivery.fence, part), sampled)


def process_span(work: Work, outcome: Outcome, trace: Trace, end_s: float) -> Span:
    """One attempt on this node, from its delivery to its outcome."""
    delivery, error = work.delivery, outcome.error
    return Span(
        name=f"process {delivery.tool}",
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        parent_id=span_id(delivery.invocation, delivery.fence, ATTEMPT),
        start_s=work.received_at,
        end_s=end_s,
        kind=CONSUMER,
        attributes={
            "messaging.system": "celery",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "mcpfleet.invocation_id": delivery.invocation,
            "mcpfleet.fence": delivery.fence,
            "mcpfleet.ending": outcome.ending,
            "mcpfleet.wait_s": None if work.started_at is None else round(work.started_at - work.received_at, 6),
        },
        error=None if error is None else error.code,
    )
