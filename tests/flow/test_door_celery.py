"""The Celery door: code that speaks Celery, against a real fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, Task, chain, chord, group
from celery.exceptions import TaskRevokedError

from tasks.client.celery import attach, make_client_app
from tasks.errors import InvocationFailed, NotSupported
from tasks.queues import TASK_NAME

WITHIN_S = 40.0


@pytest.fixture
def app(fleet_url: str, token: str) -> Celery:
    """An app of our own, without a broker."""
    return make_client_app(fleet_url, token)


@pytest.fixture
def invoke(app: Celery) -> Task:
    """Its task."""
    return app.tasks[TASK_NAME]


def test_delay_and_get_as_celery_users_know_them(invoke: Task) -> None:
    """The value is what the tool structured; state, worker and end are there to see."""
    result = invoke.delay("time.get_current_time", {"timezone": "UTC"}, project="celery-door")
    assert result.get(timeout=WITHIN_S)["timezone"] == "UTC"
    assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)
    again = invoke.AsyncResult(result.id)
    assert again.get(timeout=WITHIN_S) == result.get()
    assert again.worker in {"general-1", "general-2", "builders-1"}
    assert again.date_done <= datetime.now(UTC) + timedelta(seconds=5)


def test_times_and_priority_are_honoured(invoke: Task) -> None:
    """Countdown waits in the ledger; a deadline that passes there revokes."""
    later = invoke.apply_async(("probe.echo", {"n": 1}), countdown=600, priority=9)
    assert later.state == "PENDING"
    later.revoke()
    assert later.state == "REVOKED"
    never = invoke.apply_async(("probe.echo", {"n": 1}), expires=datetime.now(UTC) + timedelta(hours=1))
    assert never.get(timeout=WITHIN_S)


def test_failure_and_revocation_raise(invoke: Task) -> None:
    """A failed tool raises its error, a revoked one TaskRevokedError, and neither hangs."""
    failed = invoke.delay("probe.fail")
    with pytest.raises(InvocationFailed):
        failed.get(timeout=WITHIN_S)
    assert failed.state == "FAILURE"
    running = invoke.delay("probe.sleep", {"seconds": 300})
    running.revoke()
    with pytest.raises(TaskRevokedError):
        running.get(timeout=WITHIN_S)


def test_a_chain_passes_results_on(invoke: Task) -> None:
    """One request; every step keeps the id Celery chose, and the result goes where into= says."""
    first = invoke.s("time.get_current_time", {"timezone": "UTC"})
    result = chain(first, invoke.s("probe.echo", into="before"), invoke.si("probe.echo", {"n": 3}))()
    assert "3" in str(result.get(timeout=WITHIN_S))
    assert "UTC" in str(result.parent.get(timeout=WITHIN_S))
    assert result.parent.parent.get(timeout=WITHIN_S)["timezone"] == "UTC"


def test_a_broken_chain_does_not_hang(invoke: Task) -> None:
    """What follows a failure is never run, and waiting for it raises that failure."""
    result = (invoke.s("probe.fail") | invoke.si("probe.echo", {"n": 1})).apply_async()
    with pytest.raises(InvocationFailed):
        result.get(timeout=WITHIN_S)
    assert result.failed()


def test_groups_and_groups_of_chains(invoke: Task) -> None:
    """Members are accepted in one commit and come back in order."""
    result = group(invoke.s("probe.echo", {"n": n}) for n in range(30)).apply_async()
    values = result.get(timeout=WITHIN_S)
    assert [str(n) in str(value) for n, value in enumerate(values)] == [True] * 30
    chains = group(invoke.s("probe.echo", {"n": n}) | invoke.s("probe.echo", into="x") for n in range(3))
    assert len(chains.apply_async().get(timeout=WITHIN_S)) == 3


def test_what_cannot_work_says_what_can(invoke: Task) -> None:
    """A chord and a queue of one's own are refused before anything is accepted."""
    with pytest.raises(NotSupported, match="get"):
        chord([invoke.s("probe.echo")])(invoke.s("probe.echo", into="all"))
    with pytest.raises(NotSupported, match="pool="):
        invoke.apply_async(("probe.echo",), queue="mine")


def test_inside_a_users_own_app(fleet_url: str, token: str, redis_url: str) -> None:
    """Beside other tasks, with a real broker and result backend that never see a tool call."""
    app = Celery("shop", broker=redis_url, backend=redis_url, set_as_current=False)
    invoke = attach(app, fleet_url, token)
    assert "n" in str(invoke.delay("probe.echo", {"n": 1}).get(timeout=WITHIN_S))
    assert len(group(invoke.s("probe.echo", {"n": n}) for n in range(3)).apply_async().get(timeout=WITHIN_S)) == 3
    running = group(invoke.s("probe.sleep", {"seconds": 300}) for _ in range(2)).apply_async()
    running.revoke()
    with pytest.raises(TaskRevokedError):
        running.get(timeout=WITHIN_S)
    with pytest.raises(NotSupported):
        chord([invoke.s("probe.echo")])(invoke.s("probe.echo", into="all"))
