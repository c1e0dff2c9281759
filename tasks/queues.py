"""The names of everything in Redis. One place, so that ACLs and clean-up can be written from it.

`mcpfleet.n.<node>.*` belongs to one node, `mcpfleet.p.<pool>.*` to one pool.
"""

from __future__ import annotations

from tasks.invocation import Lane

PREFIX = "mcpfleet"
TASK_NAME = f"{PREFIX}.invoke"
DOORBELL = f"{PREFIX}.doorbell"
"""A stream of one entry: rung when a node joined, so that the orchestrator reads its stream at once."""

FLOWER_ASKS = f"{PREFIX}.flower.asks"
"""A set of tokens: each of a Flower that has just begun to listen and wants to be told the past."""

EXCHANGE = f"{PREFIX}.none"
"""kombu wants one; messages go to queues by name."""
BINDINGS = (f"_kombu.binding.{EXCHANGE}", f"_kombu.binding_permanent.{EXCHANGE}")
"""Sets in which kombu notes every queue that was ever consumed, and never takes one out."""


def binding_of(queue: str) -> str:
    """How kombu notes it there. Source: kombu.transport.redis.Channel._queue_bind."""
    separator = "\x06\x16"
    return separator.join((queue, "", queue))


def node_queue(node: str, lane: Lane) -> str:
    """The Celery queue of one node and lane."""
    return f"{PREFIX}.n.{node}.{lane}"


def pool_queue(pool: str, lane: Lane) -> str:
    """The Celery queue any node of a pool takes from (late binding)."""
    return f"{PREFIX}.p.{pool}.{lane}"


def events_stream(node: str) -> str:
    """The Redis stream a node writes: started, progress, finished."""
    return f"{PREFIX}.n.{node}.events"


def control_stream(node: str) -> str:
    """The Redis stream a node reads: settled, cancel."""
    return f"{PREFIX}.n.{node}.control"
