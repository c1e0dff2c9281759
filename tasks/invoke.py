"""The only task: `mcpfleet.invoke`, as its two sides see it.

On a node, `register` binds it to the executor: the message's two strings are handed over and the
body returns at once; the node's journal and the ledger follow the run, not Celery. For a caller,
`invoke` is what `tasks.client.celery.attach` gave the current Celery app: it posts, and sends no
message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, current_app
from celery.local import Proxy

from tasks.errors import NotSupported
from tasks.queues import TASK_NAME


def register(app: Celery, deliver: Callable[[str, str], None]) -> None:
    """Make `app` hand every delivery to `deliver(body, mac)`.

    Args:
        app: a worker's app.
        deliver: must not block for longer than a hand-over between threads.
    """

    def invoke(body: str, mac: str) -> None:
        deliver(body, mac)

    app.task(invoke, name=TASK_NAME, ignore_result=True, shared=False)  # other apps of this process are not nodes


def _attached() -> Any:  # noqa: ANN401 - a Celery task; celery is untyped
    task = current_app.tasks.get(TASK_NAME)
    if task is None:
        raise NotSupported(
            "invoke in an app that is not attached", "call tasks.client.celery.attach(app) once, beside your tasks"
        )
    return task


invoke = Proxy(_attached)
"""The task of the current app, looked up at every use: `invoke.delay("git.git_log", {…})`."""
