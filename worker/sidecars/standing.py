"""How a sidecar stands with its provider, and what that means for a run: wait, try elsewhere, or an answer.

Owns the words and classes of failures that come of a credential. Refuses to know what runs, and to wait.
See docs/agents.md, "Keys and quotas".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from tasks.outcome import SPENT_MIDWAY, ErrorInfo, Failure
from worker.sidecars.credential import DEFAULT_PAUSE_S, Credential
from worker.sidecars.sidecar import Ending, Fault, Result
from worker.upstreams.errors import UpstreamError, not_started

SPENT, REFUSED, AUTH = "credential_spent", "credential_refused", f"agent_{Fault.AUTH}"
_SPENT = (Fault.QUOTA, Fault.OVERLOADED)
_ELSEWHERE = (Fault.AUTH, Fault.UNREACHABLE, Fault.PROVIDER_FAILED)
"""Nobody said that time heals it: another node may do better, and tries are counted."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that is over."""

    result: Result
    used_tools: bool
    is_resumed: bool = False
    """From what an earlier attempt had saved."""
    is_saved: bool = False
    """So that it can go on from where it is now."""


class Standing:
    """Of one sidecar."""

    def __init__(self, sidecar: str, credential: Credential, on_change: Callable[[], None], *, learns: bool) -> None:
        """`learns`: what a run's end says of the credential is believed."""
        self._sidecar, self._credential, self._on_change, self._learns = sidecar, credential, on_change, learns
        self._was: str | None = None

    def trouble(self) -> str | None:
        """Why no run should come now."""
        return self._credential.broken() or self._credential.spent()

    def is_refused(self) -> bool:
        """Until somebody mends it."""
        return self._credential.broken() is not None

    def out_s(self) -> float:
        """From when it began to be spent to when it may be used again, seconds; 0 now."""
        return self._credential.out_s()

    def wait_s(self, result: Result) -> float:
        """Until it may be used again, after a run that ended so."""
        return self._credential.wait_s() or result.retry_after_s or DEFAULT_PAUSE_S

    def check(self) -> None:
        """Raises UpstreamError where nothing can begin now."""
        broken = self._credential.broken()
        if broken is not None:
            self.tell()
            raise not_started(REFUSED, f"{self._sidecar}: {broken}")
        wait_s = self._credential.wait_s()
        if wait_s > 0:
            raise self._spent(wait_s)

    def learn(self, fault: Fault | None, retry_after_s: float | None) -> None:
        """What a run's end says of the credential."""
        if self._learns and fault is Fault.AUTH:
            self._credential.heard(HTTPStatus.UNAUTHORIZED, {})
        elif self._learns and fault in _SPENT and retry_after_s is not None:
            self._credential.heard(HTTPStatus.TOO_MANY_REQUESTS, {"retry-after": str(retry_after_s)})
        self.tell()

    def tell(self) -> None:
        """The fleet should know at once that this node's credential broke, or is whole again."""
        trouble = self.trouble()
        if trouble != self._was:
            self._was = trouble
            self._on_change()

    def no_answer(self, ran: Ran) -> UpstreamError | None:
        """A failure that another try, another node or another day may not see, and that costs nobody any work."""
        result = ran.result
        if result.ending is not Ending.FAILED:
            return None
        if result.fault in _SPENT and not ran.used_tools:
            return self._spent(self.wait_s(result))
        if is_midway(ran) and ran.is_saved:
            return self._spent(self.wait_s(result), "the run's session is saved, and goes on then", SPENT_MIDWAY)
        is_untouched = not (ran.used_tools or ran.is_resumed)
        if result.fault is Fault.SETUP or (result.fault in _ELSEWHERE and is_untouched):
            return not_started(f"agent_{result.fault}", f"{self._sidecar}: {result.text}")
        return None

    def _spent(self, wait_s: float, then: str = "", code: str = SPENT) -> UpstreamError:
        message = f"{self._sidecar}: credential {self._credential.name} is spent for another {wait_s:.0f} s"
        return UpstreamError(ErrorInfo(code, "; ".join(filter(None, (message, then))), Failure.WAIT_UNTIL, wait_s))


def is_midway(ran: Ran) -> bool:
    """A quota, or an overload, that came when the agent had begun to do things."""
    return ran.result.ending is Ending.FAILED and ran.result.fault in _SPENT and ran.used_tools
