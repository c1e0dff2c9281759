"""The only task body: `mcpfleet.invoke`.

On a node, `register` binds it to the executor: the message's two strings are handed over and the
body returns at once; the node's journal and the ledger follow the run, not Celery.
"""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from tasks.queues import TASK_NAME


def register(app: Celery, deliver: Callable[[str, str], None]) -> None:
    """Make `app` hand every delivery to `deliver(body, mac)`.

    Args:
        app: a worker's app.
        deliver: must not block for longer than a hand-over between threads.
    """

    @app.task(name=TASK_NAME, ignore_result=True)
    def invoke(body: str, mac: str) -> None:
        deliver(body, mac)
