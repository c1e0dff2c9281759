"""A read-only Celery result backend over the fleet: `AsyncResult` as Celery's users know it.

Owns the states and the waiting. One request waits for as many results as are asked for. Refuses to
store: the ledger alone knows how a call ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, ResultSet

from tasks.client import flows
from tasks.client.exchange import Core, Flow
from tasks.client.results import failure_of, result_of
from tasks.client.settings import ClientSettings, find
from tasks.client.transport import Blocking
from tasks.errors import NotFound, NotSupported
from tasks.invocation import State
from tasks.queues import TASK_NAME
from tasks.wire import InvocationView, Until, WaitView

STATES = {
    State.WAITING: states.PENDING,
    State.RELEASED: states.RECEIVED,
    State.RUNNING: states.STARTED,
    State.UNREACHABLE: states.STARTED,
    State.SUCCEEDED: states.SUCCESS,
    State.FAILED: states.FAILURE,
    State.LOST: states.FAILURE,
    State.CANCELLED: states.REVOKED,
    State.EXPIRED: states.REVOKED,
}
"""WAITING is RETRY once there was an attempt. Expired is REVOKED, as a Celery worker says it."""
Meta = dict[str, Any]


class FleetLink:
    """One fleet, from Celery's blocking world. Safe across threads and forks."""

    def __init__(self, settings: ClientSettings | None = None) -> None:
        found = settings or find()
        self._http, self._core = Blocking(found), Core(found.url)

    def run(self, flow: Flow[Any]) -> Any:  # noqa: ANN401 - what the flow returns
        """Carry out a flow."""
        return self._http.run(flow)

    @property
    def core(self) -> Core:
        """For flows."""
        return self._core


class InvokeResult(AsyncResult):  # type: ignore[misc]  # celery is untyped
    """An AsyncResult that also knows chains: what was never accepted because the call before failed."""

    def revoke(self, *_args: object, **_kwargs: object) -> None:
        """End it, wherever it is. A chain's later call ends the chain where it stands."""
        link = self.backend.link
        try:
            link.run(flows.cancel(link.core, self.id))
        except NotFound:
            if self.parent is not None:
                self.parent.revoke()

    def _get_task_meta(self) -> Meta:
        meta: Meta = super()._get_task_meta()
        if meta["status"] == states.PENDING and self.parent is not None:
            before: Meta = self.parent._get_task_meta()  # noqa: SLF001 - Celery's own way to look
            if before["status"] in states.PROPAGATE_STATES:
                return self._maybe_set_cache({**before, "task_id": self.id})  # type: ignore[no-any-return]
        return meta


class FleetBackend(BaseBackend):  # type: ignore[misc]  # celery is untyped
    """`result_backend = "tasks.client.celery_results:FleetBackend+http://…"`, or made by `attach`."""

    persistent = True
    supports_autoexpire = True

    def __init__(self, app: Any, url: str | None = None, link: FleetLink | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(app, url=url, **kwargs)
        self.link = link or FleetLink(find(url))
        self.thread_safe = True
        self.alive: WeakValueDictionary[str, InvokeResult] = WeakValueDictionary()

    def as_uri(self, include_password: bool = False) -> str:  # noqa: ARG002 - Celery's signature
        """Where results come from. There is no password in it."""
        return self.link.core.url

    def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:  # noqa: ARG002 - Celery's signature
        """What is known of a call. Results keep what they learned themselves."""
        return self._get_task_meta_for(task_id)

    def _get_task_meta_for(self, task_id: str) -> Meta:
        try:
            return meta_of(self.link.run(flows.show(self.link.core, task_id)))
        except NotFound:
            return _unknown(task_id)

    def task_result_exists(self, task_id: str) -> bool:
        """The fleet has accepted a call with this id."""
        try:
            self.link.run(flows.show(self.link.core, task_id))
        except NotFound:
            return False
        return True

    def wait_for_pending(  # noqa: PLR0917 - Celery's signature
        self,
        result: AsyncResult,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002
        on_message: object = None,  # noqa: ARG002
        on_interval: Any = None,  # noqa: ANN401
        callback: Any = None,  # noqa: ANN401
        propagate: bool = True,
    ) -> Any:  # noqa: ANN401 - what the tool answered
        """The value of one result, or its error."""
        for _ in self._arrivals([result], timeout, interval, on_interval, Until.ANY):
            pass
        return result.maybe_throw(propagate=propagate, callback=callback)

    def iter_native(  # noqa: PLR0917 - Celery's signature
        self,
        result: ResultSet,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002
        on_message: object = None,  # noqa: ARG002
        on_interval: Any = None,  # noqa: ANN401
    ) -> Iterator[tuple[str, Any]]:
        """Results of a group as they end, over one connection."""
        groups = [one for one in result.results if isinstance(one, ResultSet)]
        yield from ((one.id, one.results) for one in groups)
        singles = [one for one in result.results if not isinstance(one, ResultSet)]
        yield from self._arrivals(singles, timeout, interval, on_interval, Until.FIRST_FAILURE)

    def get_many(
        self,
        task_ids: Sequence[str],
        timeout: float | None = None,
        interval: float = 0.5,
        max_iterations: int | None = None,
        **_kwargs: object,
    ) -> Iterator[tuple[str, Meta]]:
        """What has ended of these; with one iteration, as it stands."""
        if max_iterations == 1:
            yield from ((one, self.get_task_meta(one)) for one in task_ids)
            return
        results = [self.app.AsyncResult(one, backend=self) for one in task_ids]
        yield from self._arrivals(results, timeout, interval, None, Until.FIRST_FAILURE)

    def _arrivals(
        self,
        results: Sequence[AsyncResult],
        timeout: float | None,
        interval: float,
        on_interval: Any,  # noqa: ANN401 - a promise
        until: Until,
    ) -> Iterator[tuple[str, Meta]]:
        until_s = None if timeout is None else time.monotonic() + timeout
        todo = {result.id: result for result in results}
        ended: dict[str, Meta] = {}
        while True:
            for task_id, result in list(todo.items()):
                meta = _settled(result, ended)
                if meta is not None:
                    del todo[task_id]
                    result._maybe_set_cache(meta)  # noqa: SLF001 - Celery's own way to set it
                    yield task_id, meta
            if not todo:
                return
            left_s = flows.POLL_S if until_s is None else max(0.0, until_s - time.monotonic())
            found = self._poll(todo.values(), ended, min(left_s, flows.POLL_S), until)
            if left_s <= 0 and not found.ended:
                raise CeleryTimeout("The operation timed out.")
            if on_interval is not None:
                on_interval()
            if not found.ended and not found.pending:
                time.sleep(min(interval, left_s))  # not accepted yet: nothing to wait on

    def _poll(self, results: Iterable[AsyncResult], ended: dict[str, Meta], wait_s: float, until: Until) -> WaitView:
        asked = dict.fromkeys(one for result in results for one in _line_of(result) if one not in ended)
        found: WaitView = self.link.run(flows.poll_many(self.link.core, list(asked)[: flows.WAIT_MAX], wait_s, until))
        ended.update({view.id: meta_of(view) for view in found.ended})
        return found

    def _forget(self, task_id: str) -> None:
        """Nothing here to forget: the ledger keeps its history."""

    def ensure_chords_allowed(self) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported("chord", "get() the group's results, then start the next call with them")

    def apply_chord(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        self.ensure_chords_allowed()

    def store_result(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported(
            "storing a result", "results of tool calls come from the fleet; use another backend for others"
        )

    def save_group(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported("GroupResult.save", "keep the ids: `invoke.AsyncResult(id)` finds each again")

    def restore_group(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse. Raises NotSupported."""
        raise NotSupported("GroupResult.restore", "keep the ids: `invoke.AsyncResult(id)` finds each again")


def meta_of(view: InvocationView) -> Meta:
    """What Celery wants to know of a result."""
    status = STATES[view.state]
    if view.state is State.WAITING and view.fence > 0:
        status = states.RETRY
    ended = None if view.ended_at is None else datetime.fromtimestamp(view.ended_at, UTC).isoformat()
    last = view.attempts[-1] if view.attempts else None
    return {
        "task_id": view.id,
        "status": status,
        "result": _value(view, status),
        "traceback": None,
        "children": [],
        "date_done": ended,
        "name": TASK_NAME,
        "args": [view.tool],
        "kwargs": {"project": view.project},
        "worker": view.node,
        "retries": max(0, view.fence - 1),
        "queue": last.queue if last else None,
    }


def _value(view: InvocationView, status: str) -> Any:  # noqa: ANN401 - what the tool answered, or an exception
    if status == states.SUCCESS:
        return result_of(view, check=True).value
    if status == states.REVOKED:
        return TaskRevokedError(str(view.state))
    if status == states.FAILURE:
        return failure_of(view)
    return None


def _unknown(task_id: str) -> Meta:
    return {"task_id": task_id, "status": states.PENDING, "result": None, "traceback": None, "children": []}


def _settled(result: AsyncResult, ended: Mapping[str, Meta]) -> Meta | None:
    """How it ended; as the call before it in its chain did, if that ended badly."""
    for one in _line_of(result):
        meta = ended.get(one)
        if meta is not None and (one == result.id or meta["status"] in states.PROPAGATE_STATES):
            return {**meta, "task_id": result.id}
    return None


def _line_of(result: AsyncResult) -> list[str]:
    """The calls before it in its chain, first one first, then itself."""
    line, node = [result.id], result.parent
    while isinstance(node, AsyncResult):
        line.insert(0, node.id)
        node = node.parent
    return line
