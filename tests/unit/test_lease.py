"""When a node may start work, by its own clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.lease import MARGIN_S, Lease


def test_lease_counts_from_when_the_renewal_was_sent() -> None:
    """The node stops before the orchestrator may give its work away, however slow the reply was."""
    lease = Lease(term=1, ttl_s=7.0, sent_at_s=100.0)
    assert lease.is_good(100.0)
    assert lease.is_good(107.0 - MARGIN_S - 0.001)
    assert not lease.is_good(107.0 - MARGIN_S)
    assert not lease.is_good(107.0)


@given(
    sent_at_s=st.floats(0, 1e6),
    on_the_way_s=st.floats(0, 60),
    ttl_s=st.floats(0.5, 60),
    later_s=st.floats(0, 200),
)
def test_node_never_outlives_its_lease_at_the_orchestrator(
    sent_at_s: float, on_the_way_s: float, ttl_s: float, later_s: float
) -> None:
    """Whenever the node may start work, the orchestrator still holds its lease good (it counts from receipt)."""
    now_s = sent_at_s + later_s
    held_until_s = sent_at_s + on_the_way_s + ttl_s
    if Lease(1, ttl_s, sent_at_s).is_good(now_s):
        assert now_s < held_until_s


def test_a_lease_of_no_length_is_never_good() -> None:
    """Before the first grant nothing starts."""
    assert not Lease(term=0, ttl_s=0.0, sent_at_s=0.0).is_good(0.0)
