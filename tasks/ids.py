"""Identifiers: time-ordered, so that an index on them stays compact and a list sorts by age.

Refuses to be a place for any other randomness.
"""

from __future__ import annotations

import os
import time
from uuid import UUID

_MILLIS_PER_S = 1000


def new_id(now_s: float | None = None) -> str:
    """A UUIDv7 as text: 48 bits of milliseconds, then 74 random bits.

    Args:
        now_s: wall clock in seconds since the epoch; read here when absent.

    Source: RFC 9562, section 5.7.
    """
    millis = int((time.time() if now_s is None else now_s) * _MILLIS_PER_S)
    value = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(UUID(int=value))
