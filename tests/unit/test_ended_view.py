"""What whoever waits is told at the end, before the ledger is read."""

from __future__ import annotations

from orchestrator.fleet import ended_view
from orchestrator.happenings import AttemptEnded, Ended
from tasks.invocation import Call, Invocation, Lane, Principal, State
from tasks.outcome import ErrorInfo, Failure, Outcome

ERROR = ErrorInfo("tool_timeout", "it took too long", Failure.MAYBE_STARTED)


def test_the_attempt_says_why_it_failed() -> None:
    """As it does when the ledger is read: whoever asks later must not learn more of the same end."""
    last = AttemptEnded(
        invocation_id="i",
        fence=1,
        tool="s.t",
        project=None,
        pool="default",
        node="n1",
        lane=Lane.TOOLS,
        to=State.FAILED,
        ending="failed",
        released_at=1.0,
        started_at=2.0,
        at=3.0,
        tries=1,
        error=ERROR,
        not_before=None,
    )
    accepted = Invocation("i", Call("s.t"), Principal("p"), Lane.TOOLS, State.WAITING, accepted_at=0.0)
    ended = Ended("i", State.FAILED, 3.0, "s.t", Outcome("failed", error=ERROR), "unsafe_to_repeat", last)
    view = ended_view(accepted, ended)
    assert view is not None
    assert [(one.error_code, one.error_message) for one in view.attempts] == [("tool_timeout", "it took too long")]
