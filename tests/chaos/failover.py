"""`make chaos ARGS=--failover`: how long until another worker runs what a killed worker had.

Stock Celery and the fleet, in one run, on one kind of Redis; the same work, the same `kill -9` of a
whole worker. Each row is one trial per round.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos.celery_peer import app
from tests.chaos.fleet import REDIS, Fleet

LIMIT_S = 60.0
WORK_S = 2.0
PEERS: dict[str, dict[str, Any]] = {
    "Celery, as it comes": {},
    "Celery, acks_late": {"late": True},
    "Celery, acks_late, visibility timeout 10 s, swept every second": {
        "late": True,
        "transport": {"visibility_timeout": 10, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
    },
}
Say = Callable[[str], None]


async def compare(rounds: int, say: Say) -> None:
    """Measure and tell."""
    for name, options in PEERS.items():
        _tell(say, name, [await _celery(options) for _ in range(rounds)])
    _tell(say, "mcpfleet, default settings", [await _fleet() for _ in range(rounds)])


def _tell(say: Say, name: str, took_s: list[float | None]) -> None:
    say(f"{name}: " + ", ".join("not within 60 s" if each is None else f"{each:.1f} s" for each in took_s))


async def _fleet() -> float | None:
    with tempfile.TemporaryDirectory(prefix="mcpfleet-failover-") as name:
        fleet = Fleet(Path(name), ("n1", "n2"))
        try:
            await fleet.start()
            body = {"tool": "effects.put", "arguments": {"key": "k", "seconds": WORK_S}}
            accepted = (await fleet.ask("POST", "/v1/invocations", json=body)).raise_for_status().json()["id"]
            await _marked(fleet.marks, 1, LIMIT_S)
            node = (await fleet.ask("GET", f"/v1/invocations/{accepted}")).raise_for_status().json()["node"]
            killed_at = time.time()
            await fleet.kill(node, away_s=2 * LIMIT_S)
            return await _second(fleet.marks, killed_at)
        finally:
            await fleet.close()


async def _celery(options: dict[str, Any]) -> float | None:
    with tempfile.TemporaryDirectory(prefix="mcpfleet-failover-") as name:
        folder = Path(name)
        fleet = Fleet(folder, ())
        redis = fleet.kept[REDIS]
        environ = {**os.environ, "PEER_BROKER": fleet.redis_place.url, "PEER_OPTIONS": json.dumps(options)}
        workers = []
        try:
            await fleet.started(redis)
            async with asyncio.timeout(LIMIT_S), fleet.redis() as client:
                await _until_it_answers(client)
                workers = [await _worker(folder, number, environ) for number in range(2)]
                for number in range(2):
                    await _is_ready(folder / f"w{number}.log")
            producer = app.connection_for_write(fleet.redis_place.url)
            app.send_task("peer.put", args=(str(fleet.marks), "k", WORK_S), connection=producer)
            producer.close()
            first = await _marked(fleet.marks, 1, LIMIT_S)
            killed = next(worker for worker in workers if _is_of(first[0]["pid"], worker.pid))
            killed_at = time.time()
            os.killpg(killed.pid, signal.SIGKILL)
            return await _second(fleet.marks, killed_at)
        finally:
            for worker in workers:
                if worker.returncode is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                await worker.wait()
            await fleet.close()


async def _worker(folder: Path, number: int, environ: dict[str, str]) -> asyncio.subprocess.Process:
    words = ["-m", "celery", "-A", "tests.chaos.celery_peer", "worker", "-c", "1", "-l", "INFO", "-n", f"w{number}@%h"]
    with (folder / f"w{number}.log").open("w") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, env=environ, stdout=log, stderr=log, start_new_session=True
        )


async def _until_it_answers(client: Redis) -> None:
    while True:
        try:
            await client.ping()
        except RedisError:
            await asyncio.sleep(0.05)
        else:
            return


async def _is_ready(log: Path) -> None:
    while " ready." not in log.read_text():  # noqa: ASYNC110 - another process gives no event
        await asyncio.sleep(0.05)


def _is_of(pid: int, leader: int) -> bool:
    try:
        return os.getpgid(pid) == leader
    except ProcessLookupError:
        return False


async def _marked(marks: Path, count: int, within_s: float) -> list[dict[str, Any]]:
    async with asyncio.timeout(within_s):
        while True:
            found = [json.loads(line) for line in marks.read_text().splitlines()]
            found = [mark for mark in found if mark["what"] == "effect"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def _second(marks: Path, killed_at: float) -> float | None:
    try:
        found = await _marked(marks, 2, LIMIT_S)
    except TimeoutError:
        return None
    return float(found[1]["at"]) - killed_at
