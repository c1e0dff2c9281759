"""The publisher on a broker that goes away and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from orchestrator.dispatch.send import Letter, Sender
from orchestrator.testing.local import until
from tasks.app import make_app
from worker.testing.valkey import KillableValkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUEUE = "mcpfleet.n.a1.tools"
WITHIN_S = 30.0


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[KillableValkey]:
    """Running."""
    server = KillableValkey(tmp_path)
    await server.start()
    yield server
    await server.kill()


def _letter(number: int) -> Letter:
    return Letter(f"i{number}", QUEUE, "probe.echo", None, "{}", "mac")


def _waiting(server: KillableValkey) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.llen(QUEUE))  # type: ignore[arg-type]


async def test_the_publisher_finds_a_broker_that_came_back(valkey: KillableValkey) -> None:
    """It says that the broker is away, keeps what it was given, and sends it; more than once if need be."""
    sender = Sender(make_app(valkey.url))
    sender.start()
    try:
        sender.send(_letter(0))
        until(lambda: _waiting(valkey) == 1, WITHIN_S, "the first is published")
        for number in (1, 2):
            await valkey.kill()
            sender.send(_letter(number))
            until(lambda: sender.down_because is not None, WITHIN_S, "it is noticed")
            await valkey.start()
            until(lambda: sender.down_because is None, WITHIN_S, "it is back")
            assert _waiting(valkey) >= 1, "what was given meanwhile is there"
    finally:
        sender.stop()
