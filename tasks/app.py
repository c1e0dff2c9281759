# mypy: disable-error-code="no-untyped-call"
# kombu ships types for a part of itself only.
"""The only Celery configuration. Producer and consumer use the same one.

Acknowledgement is early and not emulated: the ledger, not the broker, is the truth, and emulation
costs more than half of the worker's CPU. Source: docs/adr/0002-celery-only-carries.md.
"""

from __future__ import annotations

from celery import Celery
from kombu.entity import Queue

from tasks.queues import EXCHANGE, PREFIX

HEALTH_CHECK_S = 5
SOCKET_TIMEOUT_S = 15
"""With the health check, a half-open connection is noticed in about 11 s instead of 51 s."""


def make_app(redis_url: str, *, queues: tuple[str, ...] = ()) -> Celery:
    """A Celery app bound to one Redis.

    Args:
        redis_url: broker URL.
        queues: what this process consumes; empty for a producer.
    """
    app = Celery(PREFIX, broker=redis_url, set_as_current=False)
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
        },
    )
    app.conf.task_queues = [Queue(name, routing_key=name, no_ack=True) for name in queues]
    return app
