"""What the end of a run says of its credential, and what becomes of the call then."""

from __future__ import annotations

import pytest

from tasks.outcome import SPENT_MIDWAY, Failure
from tasks.testing.clock import FakeClock
from worker.sidecars.claude_words import fault_of
from worker.sidecars.credential import DEFAULT_PAUSE_S, Credential
from worker.sidecars.sidecar import Ending, Fault, Result
from worker.sidecars.standing import SPENT, Ran, Standing, is_midway


def standing() -> Standing:
    """With a key that nobody refused."""
    credential = Credential("claude", lambda: "not-a-secret", FakeClock())
    return Standing("claude", credential, lambda: None, learns=False)


def ended(status: int, *, used_tools: bool = False, is_resumed: bool = False, is_saved: bool = False) -> Ran:
    """A run whose last request was answered so."""
    fault, said = fault_of(status, "no")
    result = Result(Ending.FAILED, said, fault)
    return Ran(result, used_tools=used_tools, is_resumed=is_resumed, is_saved=is_saved)


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_before_anything_was_done_counts_a_try(status: int) -> None:
    """It may never pass, and another node may do better; nobody says that the credential is spent."""
    error = standing().no_answer(ended(status))
    assert error is not None
    assert (error.info.code, error.info.failure) == ("agent_provider_failed", Failure.NOT_STARTED)
    assert (error.info.retry_after_s, error.info.message) == (None, f"claude: the provider failed ({status})")


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_later_is_an_answer(status: int) -> None:
    """The same request would meet it again and again, at no cost in tries: what was done is handed over."""
    ran = ended(status, used_tools=True, is_saved=True)
    assert not is_midway(ran)
    assert standing().no_answer(ran) is None
    assert standing().no_answer(ended(status, is_resumed=True)) is None


@pytest.mark.parametrize("status", [429, 529])
def test_what_the_provider_says_will_pass_is_waited_for(status: int) -> None:
    """Before anything was done, after an interruption, and in the middle where that is saved."""
    for ran in (ended(status), ended(status, is_resumed=True)):
        error = standing().no_answer(ran)
        assert error is not None
        assert (error.info.code, error.info.failure) == (SPENT, Failure.WAIT_UNTIL)
        assert error.info.retry_after_s == DEFAULT_PAUSE_S
    ran = ended(status, used_tools=True, is_saved=True)
    assert is_midway(ran)
    error = standing().no_answer(ran)
    assert error is not None
    assert (error.info.code, error.info.failure) == (SPENT_MIDWAY, Failure.WAIT_UNTIL)
    assert standing().no_answer(ended(status, used_tools=True)) is None


def test_nobody_who_answers_is_no_trouble_of_the_credential() -> None:
    """As a server error: tried again, and counted."""
    error = standing().no_answer(ended(502))
    assert error is not None
    assert error.info.code == f"agent_{Fault.UNREACHABLE}"
