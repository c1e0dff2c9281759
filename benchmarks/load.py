"""Load, as a client makes it. Standard library only: peers run it from environments of their own.

Closed loop: so many callers, each calls again when it was answered: gives the most calls a second.
Open loop: calls begin at fixed moments whether or not earlier ones were answered, and latency counts
from that moment, so that a stall is not hidden by the calls it held back (coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

Call = Callable[[], Awaitable[None]]
"""One call, awaited to its answer; raises where the answer is wrong."""
BlockingCall = Callable[[], None]
ANSWER_WITHIN_S = 60.0
MESSAGE = "x" * 100
"""What every side echoes."""


@dataclass(slots=True)
class Sample:
    """What one run saw. Latencies in seconds."""

    calls: int = 0
    took_s: float = 0.0
    failed: int = 0
    why: str = ""
    latencies_s: list[float] = field(default_factory=list)

    def ended(self, latency_s: float) -> None:
        """One call was answered."""
        self.calls += 1
        self.latencies_s.append(latency_s)

    def missed(self, error: BaseException) -> None:
        """One call failed."""
        self.failed += 1
        self.why = f"{type(error).__name__}: {error}"[:300]


@dataclass(frozen=True, slots=True)
class Figures:
    """A sample, summed up. Milliseconds."""

    calls: int
    failed: int
    why: str
    took_s: float
    calls_per_s: float
    p50_ms: float
    p99_ms: float


def figures(sample: Sample) -> Figures:
    """Percentiles by the nearest rank."""
    ordered = sorted(sample.latencies_s)

    def rank_ms(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else 0.0

    rate = sample.calls / sample.took_s if sample.took_s else 0.0
    return Figures(
        sample.calls, sample.failed, sample.why, round(sample.took_s, 3), round(rate, 1), rank_ms(0.50), rank_ms(0.99)
    )


async def closed_loop(call: Call, *, callers: int, seconds: float) -> Sample:
    """`callers` at once, each calling again as soon as it was answered."""
    sample, began = Sample(), time.perf_counter()
    until = began + seconds

    async def caller() -> None:
        while (now := time.perf_counter()) < until:
            await _timed(call, sample, now)

    await asyncio.gather(*(caller() for _ in range(callers)))
    sample.took_s = time.perf_counter() - began
    return sample


async def open_loop(call: Call, *, rate_per_s: float, seconds: float) -> Sample:
    """A call every 1 / rate seconds, answered or not."""
    sample, began = Sample(), time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    for number in range(int(rate_per_s * seconds)):
        due = began + number / rate_per_s
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.create_task(_timed(call, sample, due))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running, timeout=ANSWER_WITHIN_S)
    sample.took_s = time.perf_counter() - began
    return sample


async def _timed(call: Call, sample: Sample, since: float) -> None:
    try:
        await asyncio.wait_for(call(), ANSWER_WITHIN_S)
    except Exception as error:  # noqa: BLE001 - counted and shown
        sample.missed(error)
    else:
        sample.ended(time.perf_counter() - since)


def closed_loop_blocking(call: BlockingCall, *, callers: int, seconds: float) -> Sample:
    """As `closed_loop`, with a thread per caller."""
    sample, lock, began = Sample(), threading.Lock(), time.perf_counter()
    until = began + seconds

    def caller() -> None:
        while (now := time.perf_counter()) < until:
            _timed_blocking(call, sample, lock, now)

    _in_threads(caller, callers)
    sample.took_s = time.perf_counter() - began
    return sample


def open_loop_blocking(call: BlockingCall, *, callers: int, rate_per_s: float, seconds: float) -> Sample:
    """As `open_loop`; at most `callers` at once, and latency still counts from when a call was due."""
    sample, lock, began = Sample(), threading.Lock(), time.perf_counter()
    numbers = iter(range(int(rate_per_s * seconds)))

    def caller() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            due = began + number / rate_per_s
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            _timed_blocking(call, sample, lock, due)

    _in_threads(caller, callers)
    sample.took_s = time.perf_counter() - began
    return sample


def _timed_blocking(call: BlockingCall, sample: Sample, lock: threading.Lock, since: float) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - counted and shown
        with lock:
            sample.missed(error)
    else:
        with lock:
            sample.ended(time.perf_counter() - since)


def _in_threads(body: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=body, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---------------------------------------------------------------- the client process


async def obey(call: Call) -> None:
    """Be a client process: a JSON order per line on stdin, its figures per line on stdout."""
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        mode = order.pop("mode")
        order.pop("callers" if mode == "open" else "rate_per_s", None)
        sample = await (closed_loop if mode == "closed" else open_loop)(call, **order)
        print(json.dumps(asdict(figures(sample))), flush=True)


def obey_blocking(call: BlockingCall) -> None:
    """As `obey`, for a client that blocks."""
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        mode = order.pop("mode")
        if mode == "closed":
            order.pop("rate_per_s", None)
        sample = (closed_loop_blocking if mode == "closed" else open_loop_blocking)(call, **order)
        print(json.dumps(asdict(figures(sample))), flush=True)
