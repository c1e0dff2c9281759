"""What a node knows of its key is what an operator can act on."""

from __future__ import annotations

import pytest

from tasks.testing.clock import FakeClock
from worker.sidecars.credential import DEFAULT_PAUSE_S, LONGEST_S, OVERLOAD_PAUSE_S, Credential

WALL_S = 1_800_000_000.0
"""2027-01-15 08:00:00 UTC."""


def _heard(status: int, headers: dict[str, str]) -> tuple[Credential, FakeClock]:
    clock = FakeClock(wall_s=WALL_S)
    credential = Credential("claude", lambda: "not-a-secret", clock)
    credential.heard(status, headers)
    return credential, clock


def test_a_spent_key_says_until_when_and_then_is_good_again() -> None:
    """In words that stay the same while it is spent: what changes is told to the whole fleet."""
    credential, clock = _heard(429, {"retry-after": "5401"})
    assert credential.spent() == "credential claude is spent until 2027-01-15 09:31 UTC"
    clock.advance(5400.0)
    assert credential.spent() == "credential claude is spent until 2027-01-15 09:31 UTC"
    clock.advance(1.0)
    assert (credential.spent(), credential.wait_s(), credential.broken()) == (None, 0.0, None)


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {}, DEFAULT_PAUSE_S),
        (529, {}, OVERLOAD_PAUSE_S),
        (429, {"retry-after": "Fri, 15 Jan 2027 08:02:00 GMT"}, 120.0),
        (429, {"retry-after": "30", "anthropic-ratelimit-unified-reset": str(WALL_S + 18_000)}, 18_000.0),
        (429, {"anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:10Z"}, 10.0),
        (429, {"retry-after": "soon"}, DEFAULT_PAUSE_S),
        (429, {"retry-after": str(LONGEST_S + 1)}, DEFAULT_PAUSE_S),
        (500, {"retry-after": "30"}, 0.0),
        (403, {}, 0.0),
    ],
)
def test_the_reset_is_the_providers_own(status: int, headers: dict[str, str], wait_s: float) -> None:
    """The farthest of what it names; what cannot be, and what is no limit of the key, is not believed."""
    credential, _ = _heard(status, headers)
    assert credential.wait_s() == pytest.approx(wait_s)
    assert credential.broken() is None
