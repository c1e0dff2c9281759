"""Seconds and bytes as people read and type them. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from orchestrator.cli.exits import BadInput

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TYPED = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
_KIB = 1024


def took(seconds: float | None) -> str:
    """`340 ms`, `2.1 s`, `4 m 05 s`, `3 h 12 m`, `2 d 4 h`."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:  # noqa: PLR2004 - rounds to one second
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} m {whole % _MINUTE_S:02} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} m"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def ago(at: float, now: float) -> str:
    """`now`, `12s`, `4m`, `3h`, `2d`: one unit, for tables."""
    seconds = max(0, int(now - at))
    if seconds < 1:
        return "now"
    for unit, length in (("d", _DAY_S), ("h", _HOUR_S), ("m", _MINUTE_S)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def clock(at: float | None) -> str:
    """Local time of day with milliseconds, for one call's history."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S.%f")[:-3]


def when(at: float) -> str:
    """Local time to the second, with the date where that is not today's."""
    local = datetime.fromtimestamp(at).astimezone()
    is_today = local.date() == datetime.now().astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def parse_at(text: str, now: float) -> float:
    """`14:05` (the last one), `2026-11-21T14:05`, `20m ago` or `2h`, as seconds since the epoch.

    Raises:
        BadInput: anything else.
    """
    typed = text.strip().removesuffix("ago").strip()
    if _TYPED.fullmatch(typed):
        at = now - parse_s(typed)
        if at < 0:
            raise BadInput(f"{text!r} is before 1970; write 14:05, 2026-11-21T14:05 or 20m ago")
        return at
    here = datetime.fromtimestamp(now).astimezone()
    try:
        if _TIME_OF_DAY.fullmatch(typed):
            parts = [int(part) for part in typed.split(":")]
            then = here.replace(hour=parts[0], minute=parts[1], second=parts[2] if parts[2:] else 0, microsecond=0)
            return (then if then <= here else then - timedelta(days=1)).timestamp()
        return datetime.fromisoformat(typed).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise BadInput(f"{text!r} is not a time; write 14:05, 2026-11-21T14:05 or 20m ago") from None


def size(size_bytes: int) -> str:
    """`812 B`, `1.2 KiB`, `3.4 MiB`."""
    if size_bytes < _KIB:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= _KIB
        if value < _KIB or unit == "GiB":
            break
    return f"{value:.1f} {unit}"


def parse_s(text: str) -> float:
    """`30`, `1.5s`, `500ms`, `5m`, `2h`, in seconds.

    Raises:
        BadInput: anything else.
    """
    match = _TYPED.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"{text!r} is not a duration; write 30, 1.5s, 500ms, 5m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2] or "s"]
