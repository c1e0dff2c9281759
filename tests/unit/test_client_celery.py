"""The Celery door, over a fake fleet on a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, Task, chain, chord, group, signature
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout

from orchestrator.testing.doors import CLIENT_TOKEN
from orchestrator.testing.http import served
from tasks.client import Fleet
from tasks.client.celery import attach, make_client_app
from tasks.client.celery_calls import form_of
from tasks.errors import InvalidCall, InvocationFailed, NotSupported, UnknownTool
from tasks.invoke import invoke as current_invoke
from tasks.invoke import register
from tasks.queues import TASK_NAME

WITHIN_S = 20.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a fake fleet."""
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def app(url: str) -> Celery:
    """An app of our own."""
    return make_client_app(url, CLIENT_TOKEN)


@pytest.fixture
def invoke(app: Celery) -> Task:
    """Its task."""
    return app.tasks[TASK_NAME]


@pytest.fixture(scope="module")
def fleet(url: str) -> Iterator[Fleet]:
    """To look from the other side."""
    with Fleet(url, CLIENT_TOKEN) as fleet:
        yield fleet


def test_options_arrive_in_the_ledger(invoke: Task, fleet: Fleet) -> None:
    """id, priority (higher is sooner), project, deadline and start are the Invocation's own."""
    eta = datetime.now(UTC) + timedelta(hours=1)
    result = invoke.apply_async(
        ("probe.echo", {"text": "x"}), {"project": "shop", "requires": ["probe"]},
        task_id="chosen-by-celery", priority=9, eta=eta, expires=7200, shadow="ignored", serializer="json",
    )  # fmt: skip
    view = fleet.handle("chosen-by-celery").show()
    assert (result.id, view.priority, view.project) == ("chosen-by-celery", 9, "shop")
    assert view.not_before == pytest.approx(eta.timestamp())
    assert view.expires_at == pytest.approx(view.accepted_at + 7200, abs=5)
    assert result.state == "PENDING"
    result.revoke()


@pytest.mark.parametrize(
    ("tool", "state", "error"),
    [("probe.echo", "SUCCESS", None), ("probe.fail", "FAILURE", InvocationFailed)],
)
def test_states_and_values_are_celerys(invoke: Task, tool: str, state: str, error: type[Exception] | None) -> None:
    """`get`, `state`, `ready`, `successful`, `failed` and `result` agree."""
    result = invoke.delay(tool, {"text": "x"})
    value = result.get(timeout=WITHIN_S, propagate=False)
    assert (result.state, result.ready(), result.successful(), result.failed()) == (
        state, True, error is None, error is not None,
    )  # fmt: skip
    if error is None:
        assert (value, result.get(), result.result) == ("x", "x", "x")
    else:
        assert isinstance(value, error)
        with pytest.raises(error):
            invoke.AsyncResult(result.id).get(timeout=WITHIN_S)


def test_what_runs_and_what_is_revoked_shows(invoke: Task) -> None:
    """STARTED while it runs, a timeout when the caller's time is over, REVOKED when ended."""
    result = invoke.delay("probe.sleep", {"seconds": 60})
    with pytest.raises(CeleryTimeout):
        result.get(timeout=0.1)
    assert result.state == "STARTED"
    with pytest.raises(CeleryTimeout):
        result.get(timeout=0)
    result.revoke(terminate=True)
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WITHIN_S)


def test_a_call_that_was_retried_shows_it(invoke: Task) -> None:
    """Celery's `retries` counts the attempts after the first."""
    result = invoke.delay("probe.flaky", {"key": "celery", "times": 2})
    assert result.get(timeout=WITHIN_S) == "worked after 2"
    assert (result.retries, result.worker, result.name) == (2, "a", TASK_NAME)


def test_an_unknown_id_is_pending(app: Celery, invoke: Task) -> None:
    """As with every Celery backend; `exists` tells the difference."""
    assert app.AsyncResult("nobody-knows-me").state == "PENDING"
    assert app.AsyncResult("nobody-knows-me").exists() is False
    assert invoke.delay("probe.echo").exists() is True


def test_a_chain_is_one_request_with_celerys_ids(invoke: Task, fleet: Fleet) -> None:
    """Each step's id is known at once; s() passes the result into the named argument, si() nothing."""
    first = invoke.s("probe.echo", {"text": "abc"})
    result = chain(first, invoke.s("probe.stats", into="text"), invoke.si("probe.echo", {"text": "end"}))()
    assert result.get(timeout=WITHIN_S) == "end"
    assert result.parent.get(timeout=WITHIN_S) == {"text": "abc", "length": 3}
    assert result.parent.parent.get(timeout=WITHIN_S) == "abc"
    ids = [result.parent.parent.id, result.parent.id, result.id]
    assert [fleet.handle(one).show().tool for one in ids] == ["probe.echo", "probe.stats", "probe.echo"]


def test_a_chain_that_breaks_tells_everyone_who_waits(invoke: Task) -> None:
    """The later step never existed; its result is the failure before it."""
    result = (invoke.s("probe.fail", {"text": "no"}) | invoke.si("probe.echo")).apply_async()
    with pytest.raises(InvocationFailed, match="no"):
        result.get(timeout=WITHIN_S)
    assert (result.state, result.failed()) == ("FAILURE", True)


def test_revoking_a_chain_ends_it_where_it_stands(invoke: Task) -> None:
    """Also by the group that it is a member of."""
    slow = invoke.s("probe.sleep", {"seconds": 60})
    one = (slow | invoke.si("probe.echo")).apply_async()
    one.revoke()
    assert (one.parent.state, one.state) == ("REVOKED", "REVOKED")
    many = group(slow | invoke.si("probe.echo") for _ in range(2)).apply_async()
    many.revoke()
    assert [member.parent.state for member in many] == ["REVOKED", "REVOKED"]


def test_groups_come_back_in_order(invoke: Task) -> None:
    """Groups, groups of chains, and a group with a failure in it."""
    assert group(invoke.s("probe.echo", {"text": str(n)}) for n in range(40)).apply_async().get(timeout=WITHIN_S) == [
        str(n) for n in range(40)
    ]
    chains = group(invoke.s("probe.echo", {"text": "x" * n}) | invoke.s("probe.stats", into="text") for n in range(3))
    assert [one["length"] for one in chains.apply_async().get(timeout=WITHIN_S)] == [0, 1, 2]
    slow, bad = invoke.s("probe.sleep", {"seconds": 60}), invoke.s("probe.fail") | invoke.si("probe.echo")
    result = group(slow, bad).apply_async()
    with pytest.raises(InvocationFailed):
        result.get(timeout=WITHIN_S)
    assert (result.ready(), result.failed(), result.completed_count()) == (False, True, 0)
    result.revoke()


def test_a_group_is_accepted_whole_or_not_at_all(invoke: Task, fleet: Fleet) -> None:
    """One member that the fleet refuses, and none of the others runs."""
    good = invoke.s("probe.echo").set(task_id="group-member-1")
    with pytest.raises(UnknownTool):
        group(good, invoke.s("probe.nothing")).apply_async()
    assert invoke.AsyncResult("group-member-1").exists() is False


REFUSED: dict[str, Callable[[Task], Any]] = {
    "chord": lambda t: chord([t.s("probe.echo")])(t.s("probe.echo", into="text")),
    "group then task": lambda t: (group(t.s("probe.echo"), t.s("probe.echo")) | t.s("probe.echo", into="text"))(),
    "group in a chain": lambda t: chain(t.s("probe.echo"), group(t.s("probe.echo"), t.s("probe.echo")))(),
    "queue": lambda t: t.apply_async(("probe.echo",), queue="mine"),
    "exchange": lambda t: t.apply_async(("probe.echo",), exchange="mine"),
    "routing_key": lambda t: t.s("probe.echo").set(routing_key="mine").delay(),
    "link": lambda t: t.apply_async(("probe.echo",), link=t.s("probe.echo")),
    "link_error": lambda t: t.s("probe.echo").on_error(t.s("probe.echo")).apply_async(),
    "chunks": lambda t: t.chunks([1], 1),
    "map": lambda t: t.map([1]),
    "starmap": lambda t: t.starmap([1]),
    "in process": lambda t: t("probe.echo"),
    "apply": lambda t: t.s("probe.echo").apply(),
    "foreign step": lambda t: (t.s("probe.echo") | signature("shop.add", app=t.app)).apply_async(),
    "guessing": lambda t: (t.s("probe.echo") | t.s("probe.stats")).apply_async(),
    "late countdown": lambda t: (t.s("probe.echo") | t.si("probe.echo").set(countdown=5)).apply_async(),
    "an option of nobody": lambda t: t.apply_async(("probe.echo",), prioritty=1),
    "headers": lambda t: t.apply_async(("probe.echo",), headers={"a": 1}),
    "another task": lambda t: t.app.send_task("shop.add"),
    "saving a group": lambda t: group(t.s("probe.echo"), t.s("probe.echo")).apply_async().save(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_with_what_can(invoke: Task, what: str) -> None:
    """A clear error, at the call, in the caller's own words."""
    with pytest.raises(NotSupported) as caught:
        REFUSED[what](invoke)
    assert len(caught.value.message.split(": ", 1)[1]) > 20


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((7,), {}),
        (("a.b", [1]), {}),
        (("a.b", {}, "more"), {}),
        (("a.b",), {"tool": "c.d"}),
        (("a.b",), {"projct": "x"}),
        (("a.b",), {"into": "x"}),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Before it is sent, naming what is wrong."""
    with pytest.raises(InvalidCall):
        form_of(args, kwargs, {}, UTC)


def test_times_are_read_as_celery_reads_them() -> None:
    """Naive times are in the app's zone; text is ISO 8601; timedeltas and numbers are from now."""
    naive = datetime(2030, 1, 1, 12)  # noqa: DTZ001 - the point
    zone = UTC
    assert form_of(("a.b",), {}, {"eta": naive}, zone)["not_before"] == naive.replace(tzinfo=UTC).timestamp()
    text = "2030-01-01T12:00:00+01:00"
    assert form_of(("a.b",), {}, {"expires": text}, zone)["expires_at"] == naive.replace(tzinfo=UTC).timestamp() - 3600
    assert form_of(("a.b",), {}, {"expires": timedelta(minutes=1)}, zone)["deadline_s"] == 60
    assert form_of(("a.b",), {}, {"countdown": 0.5, "time_limit": 9, "soft_time_limit": 7}, zone) == {
        "tool": "a.b", "arguments": {}, "delay_s": 0.5, "timeout_s": 7,
    }  # fmt: skip


def test_a_value_from_a_task_before_goes_where_into_says(invoke: Task) -> None:
    """What Celery prepends, from a user's own task or a partial call, becomes the named argument."""
    assert invoke.s("probe.stats", into="text").delay("abc").get(timeout=WITHIN_S)["length"] == 3
    assert (invoke.s("probe.stats", into="text") | invoke.si("probe.echo", {"text": "end"}))("abc").get(
        timeout=WITHIN_S
    ) == "end"


def test_an_attached_app_keeps_its_own_tasks(url: str) -> None:
    """Invoke beside the app's own: its broker is not asked, and an id that is not ours is passed on."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)

    def add(one: int, other: int) -> int:
        return one + other

    app.task(add, name="shop.add", shared=False)
    invoke = attach(app, url, CLIENT_TOKEN)
    result = invoke.delay("probe.echo", {"text": "x"})
    assert result.get(timeout=WITHIN_S) == "x"
    assert (
        group(invoke.s("probe.echo", {"text": "y"}) for _ in range(3)).apply_async().get(timeout=WITHIN_S) == ["y"] * 3
    )
    passed: list[list[str]] = []
    broadcast = app.control.broadcast
    app.control.broadcast = lambda name, **how: passed.append(how["arguments"]["task_id"])
    running = invoke.delay("probe.sleep", {"seconds": 60})
    app.control.revoke([running.id, "of-another-task"])
    app.control.broadcast = broadcast
    assert (running.state, passed) == ("REVOKED", [["of-another-task"]])


def test_invoke_is_the_current_apps(url: str) -> None:
    """`from tasks.invoke import invoke` works once the current app is attached, and says so before."""
    node = Celery("node", broker="memory://", set_as_current=False)
    register(node, lambda _body, _mac: None)
    assert TASK_NAME in node.tasks
    app = Celery("mine", broker="memory://")
    with pytest.raises(NotSupported, match="attach"):
        current_invoke.delay("probe.echo")
    attach(app, url, CLIENT_TOKEN)
    assert current_invoke.delay("probe.echo", {"text": "x"}).get(timeout=WITHIN_S) == "x"
    app.close()
