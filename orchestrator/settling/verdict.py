"""What becomes of an Invocation when one of its attempts ends. Pure.

Turns what a node said, or what its silence means, into one `Settlement`. Refuses to touch the
ledger, a clock or a random source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.ledger.values import Outstanding, Settlement
from tasks.invocation import State
from tasks.outcome import SPENT_MIDWAY, ErrorInfo, Failure, Outcome
from tasks.retry import Again, RetryPolicy, next_attempt
from tasks.tool import OnNodeLoss

SUCCEEDED = State.SUCCEEDED.value
POISON_AFTER_DEATHS = 2
HANDED_ON = frozenset({"node_drained", "node_cut_off"})
"""Error codes of attempts that their node ended so that another one can go on with them."""
LOSSES = frozenset({"node_lost", "node_restarted", "node_replaced", "node_left", "node_cut_off", "ledger_restored"})
"""Error codes of attempts that their node was lost with. They use up no retries: the fleet's troubles are
not the call's."""
LOSSES_MAX = 10
"""A call that took so many nodes with it, or had such luck, is tried no more."""
_ENDINGS = {state.value: state for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.LOST)}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the verdict depends on besides the attempt itself.

    Attributes:
        policy: how often this call may be tried.
        is_safe: its tool may be repeated after it may have started.
        on_node_loss: what is declared for the case that its node is lost.
        now_s: wall clock.
        draw: uniform in [0, 1), for the backoff.
        deaths: earlier attempts of it during which the worker process died.
        losses: earlier attempts of it that were lost with their nodes, deaths included.
        has_capsule: what it did until lately is saved.
    """

    policy: RetryPolicy
    is_safe: bool
    now_s: float
    draw: float
    deaths: int = 0
    losses: int = 0
    on_node_loss: OnNodeLoss = OnNodeLoss.ASK
    has_capsule: bool = False

    def goes_on(self, *, was_started: bool) -> bool:
        """After its node was lost. Without a word of it that it was started, all it can have done is undone with it."""
        match self.on_node_loss:
            case OnNodeLoss.RERUN:
                return True
            case OnNodeLoss.RESUME:
                return self.has_capsule or not was_started
            case _:
                return False


def is_death(code: str | None, started_at: float | None) -> bool:
    """The worker process died while it ran this. A lost network is no death; nor is what only waited there."""
    return code == "node_restarted" or (code == "node_replaced" and started_at is not None)


def on_finished(
    attempt: Outstanding,
    outcome: Outcome,
    *,
    node: str,
    ended_at: float,
    started_at: float | None,
    given: Circumstances,
) -> Settlement:
    """The node reported an end."""
    ending = _ENDINGS.get(outcome.ending, State.FAILED)
    if ending is State.FAILED and outcome.error is not None:
        error = outcome.error
        if error.code in HANDED_ON and given.on_node_loss is OnNodeLoss.RESUME and given.has_capsule:
            return _rerun(attempt, error, given, node=node)
        if error.code == SPENT_MIDWAY and not given.has_capsule:
            error = _unsaved(error)
            outcome = replace(outcome, error=error)
        return _failed(attempt, outcome, error, node=node, started_at=started_at, given=given)
    return Settlement(
        invocation_id=attempt.invocation_id,
        fence=attempt.fence,
        node=node,
        to=ending,
        attempt_ending=ending.value,
        at=ended_at,
        started_at=started_at,
        outcome=outcome,
        error=outcome.error,
        counts_try=started_at is not None,
        dead_reason="deadline" if ending is State.EXPIRED else None,
    )


def on_lapsed(attempt: Outstanding, *, given: Circumstances, code: str, message: str) -> Settlement:
    """The node's lease lapsed, or it came back without its memory, while it may have been running.

    What reruns on node loss, as safe work does, goes elsewhere at once; other work becomes unreachable,
    for a grace.
    """
    error = ErrorInfo(code, message, Failure.MAYBE_STARTED)
    if given.on_node_loss is not OnNodeLoss.RERUN:
        return Settlement(
            invocation_id=attempt.invocation_id,
            fence=attempt.fence,
            node=None,
            to=State.UNREACHABLE,
            attempt_ending="unreachable",
            at=given.now_s,
            error=error,
        )
    return _rerun(attempt, error, given)


def on_lost(attempt: Outstanding, *, given: Circumstances, code: str, message: str) -> Settlement:
    """It may have started and nobody will ever say how it ended.

    It is tried again, goes on from its capsule, fails, or is lost, as declared for its tool.
    """
    reruns = given.goes_on(was_started=attempt.started_at is not None)
    is_poison = reruns and is_death(code, attempt.started_at) and given.deaths + 1 >= POISON_AFTER_DEATHS
    failure = Failure.POISON if is_poison else Failure.MAYBE_STARTED
    error = ErrorInfo(code, message, failure)
    if reruns:
        return _rerun(attempt, error, given)
    ending = State.FAILED if given.on_node_loss is OnNodeLoss.FAIL else State.LOST
    return Settlement(
        invocation_id=attempt.invocation_id,
        fence=attempt.fence,
        node=None,
        to=ending,
        attempt_ending="lost",
        at=given.now_s,
        outcome=Outcome(ending.value, error=error),
        error=error,
        counts_try=True,
        dead_reason=code,
    )


def on_disowned(attempt: Outstanding, *, now_s: float, why: str = "disowned") -> Settlement:
    """It surely never started: back to waiting at once, at no cost in tries."""
    return Settlement(
        invocation_id=attempt.invocation_id,
        fence=attempt.fence,
        node=None,
        to=State.WAITING,
        attempt_ending=why,
        at=now_s,
        is_unclaimed=attempt.node is None,
    )


def _rerun(attempt: Outstanding, error: ErrorInfo, given: Circumstances, *, node: str | None = None) -> Settlement:
    """At no cost in tries; at once the first time, then with the retry policy's wait."""
    if given.losses + 1 >= LOSSES_MAX:
        error = replace(error, failure=Failure.POISON)
    again = replace(given, is_safe=True)
    outcome = Outcome("failed", error=error)
    settled = _failed(attempt, outcome, error, node=node, started_at=attempt.started_at, given=again, counted=False)
    return settled if given.losses else replace(settled, not_before=None)


def _unsaved(error: ErrorInfo) -> ErrorInfo:
    """It would begin anew, and do everything twice: whoever called decides on that."""
    message = f"{error.message}. But the orchestrator does not have that session; replay the call to begin it anew"
    return replace(error, message=message, failure=Failure.PERMANENT)


def _failed(
    attempt: Outstanding,
    outcome: Outcome,
    error: ErrorInfo,
    *,
    node: str | None,
    started_at: float | None,
    given: Circumstances,
    counted: bool = True,
) -> Settlement:
    counted = counted and error.failure is not Failure.WAIT_UNTIL
    tries = attempt.tries + (1 if counted else 0)
    decision = next_attempt(error, tries=tries, is_safe=given.is_safe, policy=given.policy, draw=given.draw)
    retry = decision if isinstance(decision, Again) else None
    return Settlement(
        invocation_id=attempt.invocation_id,
        fence=attempt.fence,
        node=node,
        to=State.WAITING if retry else State.FAILED,
        attempt_ending="failed" if node else "superseded",
        at=given.now_s,
        started_at=started_at,
        outcome=None if retry else outcome,
        error=error,
        not_before=given.now_s + retry.wait_s if retry else None,
        counts_try=counted,
        dead_reason=None if isinstance(decision, Again) else decision.why,
    )
