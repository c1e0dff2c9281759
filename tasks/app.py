# mypy: disable-error-code="no-untyped-call,misc"
# kombu ships types for a part of itself only.
"""The only Celery configuration. Producer and consumer use the same one.

Acknowledgement is early and not emulated: the ledger, not the broker, is the truth, and emulation
costs more than half of the worker's CPU. Source: docs/adr/0002-celery-only-carries.md.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue

from tasks.queues import EXCHANGE, PREFIX
from tasks.redis_clients import SENTINEL_TRANSPORT, broker

HEALTH_CHECK_S = 5
SOCKET_TIMEOUT_S = 15
"""With the health check, a half-open connection is noticed in about 11 s instead of 51 s."""
RECONNECT_S = {"interval_start": 0.5, "interval_step": 0.25, "interval_max": 1.0}
"""Work waits for us as soon as the broker, or another master, is there."""


class BrokerConnection(Connection):
    """Tried every second, by publishers and consumers; kombu's own waits grow to 30 s."""

    resolve_aliases = {**Connection.resolve_aliases, SENTINEL_TRANSPORT: "sentinel"}  # noqa: RUF012 - kombu's

    def _ensure_connection(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - kombu is untyped
        return super()._ensure_connection(*args, **(RECONNECT_S | kwargs))


def make_app(redis_url: str, *, queues: tuple[str, ...] = ()) -> Celery:
    """A Celery app bound to one Redis, or to one set of them that Sentinel watches.

    Args:
        redis_url: what MCPFLEET_REDIS_URL may say.
        queues: what this process consumes; empty for a producer.

    Raises:
        SettingsError: the address is wrong.
    """
    found = broker(redis_url)
    app = Celery(PREFIX, broker=found.url, set_as_current=False)
    if found.transport is not None:
        app.conf.broker_transport = found.transport
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_create_missing_queues=True,
        task_default_queue=EXCHANGE,
        task_send_sent_event=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "ack_emulation": False,
            "priority_steps": [0],
            "health_check_interval": HEALTH_CHECK_S,
            "socket_timeout": SOCKET_TIMEOUT_S,
            **found.options,
        },
    )
    app.amqp.Connection = BrokerConnection
    app.conf.task_queues = [Queue(name, routing_key=name, no_ack=True) for name in queues]
    return app
