"""What whoever writes to Redis cannot make a worker do before any of our code has looked: unpickle, or obey."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.message import Message
from kombu.serialization import prepare_accept_content

from tasks.app import make_app


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.at,)  # type: ignore[return-value]


@pytest.mark.parametrize("content", ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack"])
def test_only_json_is_read_from_the_broker(tmp_path: Path, content: str) -> None:
    """Anything else is refused by its type, and nothing in it runs."""
    named = make_app("redis://127.0.0.1:1/0").conf.accept_content
    accepted = prepare_accept_content(named)  # type: ignore[no-untyped-call] # as a consumer does
    trap = tmp_path / "sprung"
    body = pickle.dumps(Trap(trap))
    message = Message(body, content_type=content, content_encoding="binary", accept=accepted)  # type: ignore[no-untyped-call]
    with pytest.raises(ContentDisallowed):
        message.decode()  # type: ignore[no-untyped-call]
    assert not trap.exists()
    good = Message("[1]", content_type="application/json", content_encoding="utf-8", accept=accepted)  # type: ignore[no-untyped-call]
    assert good.decode() == [1]  # type: ignore[no-untyped-call]


def test_nobody_steers_workers_through_the_broker() -> None:
    """No pidbox: a worker listens to no `shutdown`, `rate_limit` or `pool_grow`."""
    assert make_app("redis://127.0.0.1:1/0").conf.worker_enable_remote_control is False
