"""Queueing theory: how long calls wait where so many slots serve so much load.

Owns the formulas, in slots and seconds. Knows nothing of machines, pools and policies.
"""

from __future__ import annotations

from math import exp, floor


def late_share(slots: int, load: float, service_s: float, wait_s: float, *, scv: float = 1.0) -> float:
    """The share of calls that wait longer than `wait_s` for their start.

    Args:
        slots: servers, m.
        load: offered load a in Erlang: arrivals per second times `service_s`.
        service_s: mean service time, S.
        wait_s: t.
        scv: squared coefficient of variation of the service time. Arrivals are taken as Poisson (1).

    P(W > t) = C(m, a) * exp(-t / w), with w = S / (m - a) * (1 + scv) / 2 the mean wait of those that wait.

    Source: Erlang's C; Allen and Cunneen's approximation for G/G/m, in Allen, Probability, Statistics and
    Queueing Theory, 2nd ed. 1990, section 5.5; that conditional waits are about exponential: Whitt,
    Approximations for the GI/G/m Queue, 1993.
    """
    if load <= 0.0:
        return 0.0
    if slots <= load:
        return 1.0
    return _late(slots, load, _loss(slots, load), service_s=service_s, wait_s=wait_s, scv=scv)


def slots_needed(
    load: float, service_s: float, wait_s: float, *, scv: float = 1.0, late: float = 0.05, most: int = 100_000
) -> int:
    """The fewest slots with which at most the share `late` of calls waits longer than `wait_s`.

    Args:
        load: offered load, Erlang.
        service_s: mean service time.
        wait_s: the target.
        scv: squared coefficient of variation of the service time.
        late: 0.05 is a 95th percentile.
        most: where the search ends, and what it gives if even that is not enough.
    """
    if load <= 0.0:
        return 0
    first = floor(load) + 1
    if first >= most:
        return most
    loss = _loss(first, load)
    for slots in range(first, most):
        if _late(slots, load, loss, service_s=service_s, wait_s=wait_s, scv=scv) <= late:
            return slots
        loss = load * loss / (slots + 1 + load * loss)
    return most


def _late(slots: int, load: float, loss: float, *, service_s: float, wait_s: float, scv: float) -> float:
    delayed = loss / (1.0 - (load / slots) * (1.0 - loss))
    return delayed * exp(-2.0 * wait_s * (slots - load) / (service_s * (1.0 + scv)))


def _loss(slots: int, load: float) -> float:
    """Erlang's B by its recursion, which neither overflows nor loses digits."""
    loss = 1.0
    for busy in range(1, slots + 1):
        loss = load * loss / (busy + load * loss)
    return loss
