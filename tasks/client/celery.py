"""The Celery door: code that speaks Celery calls the fleet's tools with `invoke`.

    app = make_client_app()                        # needs no broker
    invoke = app.tasks[TASK_NAME]

    app = Celery("shop", broker=…)                 # or beside your own tasks
    invoke = attach(app)

    invoke.delay("time.get_current_time", {"timezone": "UTC"}, project="shop").get(timeout=10)

`delay` and `apply_async` post to the orchestrator and return once the ledger has committed. No
message is sent: a broker in between could lose what was accepted. docs/api.md says what works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, tzinfo
from typing import Any, NoReturn

from celery import Celery, Task
from celery.app.control import Control
from celery.utils import uuid
from kombu.utils import symbol_by_name
from kombu.utils.objects import cached_property

from tasks.client import flows
from tasks.client.celery_calls import form_of
from tasks.client.celery_results import FleetBackend, FleetLink, InvokeResult
from tasks.client.settings import find
from tasks.errors import NotSupported
from tasks.queues import TASK_NAME

MANY = "use group(invoke.s(tool, a) for a in …), or tasks.client.Fleet().map(tool, …)"


class Batch:
    """Calls of one group, posted together: all accepted, or none. Stands where Celery has a producer."""

    def __init__(self, link: FleetLink) -> None:
        self._link = link
        self._forms: list[dict[str, Any]] = []

    def add(self, form: dict[str, Any]) -> None:
        """One more."""
        self._forms.append(form)

    def post(self) -> None:
        """Accept them."""
        if self._forms:
            self._link.run(flows.submit_forms(self._link.core, self._forms))
        self._forms = []


class Invoke(Task):  # type: ignore[misc]  # celery is untyped
    """`invoke(tool, arguments=None, *, project=None, requires=…, …)`: one tool call."""

    name = TASK_NAME
    abstract = False
    ignore_result = False
    typing = False
    """The signature is checked by `form_of`, which knows chains."""
    link: FleetLink

    def apply_async(  # noqa: PLR0917 - Celery's signature
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: object = None,
        link: object = None,
        link_error: object = None,
        shadow: str | None = None,
        **options: Any,  # noqa: ANN401 - Celery's options
    ) -> InvokeResult:
        """Have a tool called; durable when this returns.

        Args:
            args: tool, arguments.
            kwargs: `project`, `requires`, `pool`, `lane`, `timeout_s`, `retry`, …
            task_id: becomes the Invocation's id.
            producer: without effect, there is no message.
            link: refused; write a chain.
            link_error: refused; `get()` raises.
            shadow: without effect, Flower shows the tool.
            options: `priority` (0 to 9, higher is sooner), `expires`, `countdown`, `eta`, `time_limit`.

        Raises:
            NotSupported: what cannot work, with what can.
            InvalidCall: and its children: the fleet does not take it.
            OrchestratorDown: nothing answers; nothing was accepted.
        """
        if self.app.conf.task_always_eager:
            self.apply()
        task_id = task_id or uuid()
        said = {**options, "task_id": task_id, "link": link, "link_error": link_error, "shadow": shadow}
        form = form_of(args or (), kwargs or {}, said, _zone(self.app))
        if isinstance(producer, Batch):
            producer.add(form)
        else:
            self.link.run(flows.submit_form(self.link.core, form))
        result = self.AsyncResult(task_id)
        result.ignored = bool(options.get("ignore_result"))
        self._leave_trail(result, options)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> InvokeResult:  # noqa: N802, ANN401 - Celery's signature
        """A call accepted before, by its id."""
        result = InvokeResult(task_id, backend=self.backend, app=self.app, **kwargs)
        # the first stays: Celery freezes a chain twice, and hands the first one to the caller
        self.backend.alive.setdefault(task_id, result)
        return result

    def run(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse: the tool runs on a node. Raises NotSupported."""
        raise NotSupported(
            "running invoke in this process", "use invoke.delay(…).get(), or tasks.client.Fleet().call(…)"
        )

    __call__ = run
    apply = run

    def chunks(self, *_args: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported("chunks", MANY)

    def map(self, *_args: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported("map", MANY)

    def starmap(self, *_args: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported("starmap", MANY)

    def _leave_trail(self, result: InvokeResult, options: Mapping[str, Any]) -> None:
        parent = self.app.current_worker_task
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)


class ClientApp(Celery):  # type: ignore[misc]  # celery is untyped
    """A Celery app whose only task is `invoke`. It has no broker."""

    link: FleetLink

    @cached_property
    def AsyncResult(self) -> type[InvokeResult]:  # noqa: N802 - Celery's name
        """Results of this app."""
        made: type[InvokeResult] = self.subclass_with_self(InvokeResult, name="AsyncResult", reverse="AsyncResult")
        return made

    @contextmanager
    def producer_or_acquire(self, producer: object = None) -> Iterator[object]:
        """What Celery sends a group through: one post for all of it."""
        if producer is not None:
            yield producer
            return
        batch = Batch(self.link)
        yield batch
        batch.post()

    def send_task(self, name: str, args: object = None, kwargs: object = None, **options: Any) -> InvokeResult:  # noqa: ANN401
        """`invoke` by its name. Raises NotSupported for any other."""
        if name != TASK_NAME:
            raise NotSupported(
                f"sending {name!r}", f"this app knows {TASK_NAME!r} only; use attach(app) on your own app"
            )
        for word in ("result_cls", "task_type"):
            options.pop(word, None)
        result: InvokeResult = self.tasks[TASK_NAME].apply_async(args, kwargs, **options)
        return result


def make_client_app(url: str | None = None, token: str | None = None, *, is_current: bool = False) -> Celery:
    """A Celery app for callers that have none. `app.tasks["mcpfleet.invoke"]` is `invoke`.

    Args:
        url: of the orchestrator; else MCPFLEET_URL, else the local fleet.
        token: else MCPFLEET_TOKEN, else the local fleet's.
        is_current: make it the process's current app, so that `tasks.invoke.invoke` is its task.
    """
    app = ClientApp("mcpfleet.client", broker="memory://", set_as_current=is_current)
    app.conf.update(task_serializer="json", accept_content=["json"], result_serializer="json")
    app.link = FleetLink(find(url, token))
    backend = FleetBackend(app, link=app.link)
    backend.supports_native_join = True
    app._backend = backend  # noqa: SLF001 - as app.backend itself sets it
    _install(app, backend, app.link)
    return app


def attach(app: Celery, url: str | None = None, token: str | None = None) -> Task:
    """Give an existing Celery app the task `invoke`; the app's own tasks stay as they are.

    In the app's workers too, so that their tasks may call tools and chains may end with some.
    `app.control.revoke` ends tool calls over HTTP and passes other ids on.

    Args:
        app: any app, with any broker and result backend.
        url: of the orchestrator; else MCPFLEET_URL, else the local fleet.
        token: else MCPFLEET_TOKEN, else the local fleet's.

    Returns:
        The task.
    """
    link = FleetLink(find(url, token))
    backend = FleetBackend(app, link=link)
    return _install(app, backend, link)


def _install(app: Celery, backend: FleetBackend, link: FleetLink) -> Task:
    task = app.register_task(type("invoke", (Invoke,), {"link": link, "__module__": __name__})())
    task.backend = backend
    app.__dict__["control"] = _control_of(app, backend)
    return task


def _control_of(app: Celery, backend: FleetBackend) -> Control:
    base: Any = symbol_by_name(app.control_cls)  # type: ignore[no-untyped-call]

    class FleetControl(base):  # type: ignore[misc]  # whatever class the app has
        """Revokes tool calls over HTTP; everything else is the app's own."""

        def revoke(self, task_id: str | Sequence[str], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """End calls. A running one is asked to stop, with or without `terminate`."""
            ids = [task_id] if isinstance(task_id, str) else list(task_id)
            own = {one: result for one in ids if (result := backend.alive.get(one)) is not None}
            if isinstance(app, ClientApp):
                own |= {one: app.AsyncResult(one) for one in ids if one not in own}
            for result in own.values():
                result.revoke()
            others = [one for one in ids if one not in own]
            return super().revoke(others, *args, **kwargs) if others else None

    return FleetControl(app)


def _zone(app: Celery) -> tzinfo:
    zone: tzinfo | None = app.timezone
    return zone or UTC
