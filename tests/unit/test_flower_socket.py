"""Where Flower listens when nobody hands it a socket."""

from __future__ import annotations

from contextlib import closing

import pytest

from orchestrator.local.flower_main import BIND, BIND_DEFAULT, listening


def test_a_given_address_is_bound() -> None:
    """A container has no parent that binds for it, so the address comes by the environment."""
    with closing(listening({BIND: "127.0.0.1:0"})) as found:
        host, port = found.getsockname()
        assert (host, port > 0, found.getblocking()) == ("127.0.0.1", True, False)


def test_without_an_address_it_stays_on_loopback() -> None:
    """Nothing is exposed by leaving a variable out."""
    assert BIND_DEFAULT.startswith("127.0.0.1:")


@pytest.mark.parametrize("address", ["5555", "0.0.0.0", ":5555", "here:there"])
def test_an_unreadable_address_is_refused_with_its_form(address: str) -> None:
    """The message says what was given and what to write."""
    with pytest.raises(ValueError, match="write host:port"):
        listening({BIND: address})
