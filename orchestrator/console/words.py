"""Values as people read them on a page: the same words as the command line's, with times in UTC. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from markupsafe import Markup

from orchestrator.cli.durations import ago, size, took
from orchestrator.cli.shortid import short
from tasks.invocation import State
from tasks.node import NodeState

GOOD, CALM, BUSY, WARN, BAD = "good", "calm", "busy", "warn", "bad"
"""What a word means, for its colour and its sign; the word itself is always there."""
SHOWN_CHARS = 20_000
LAST_S = 253_402_300_799.0
"""9999-12-31 23:59:59 UTC."""
CENTS_FROM = 0.1
"""Less is shown with a hundredth of a cent: machines' prices have those."""
TONES: Mapping[str, str] = {
    State.WAITING: CALM,
    State.RELEASED: CALM,
    State.RUNNING: BUSY,
    State.UNREACHABLE: WARN,
    State.SUCCEEDED: GOOD,
    State.FAILED: BAD,
    State.CANCELLED: CALM,
    State.EXPIRED: WARN,
    State.LOST: BAD,
    NodeState.ACTIVE: GOOD,
    NodeState.CORDONED: WARN,
    NodeState.DRAINING: WARN,
    **dict.fromkeys(("open", "refused", "denied", "left"), BAD),
    **dict.fromkeys(("half-open", "leaving", "terminating"), WARN),
    **dict.fromkeys(("booting", "provisioning"), BUSY),
    **dict.fromkeys(("closed", "allowed", "ready"), GOOD),
}
SIGNS: Mapping[str, str] = {GOOD: "●", CALM: "○", BUSY: "◐", WARN: "▲", BAD: "■"}


def tone(word: str) -> str:
    """What a state means."""
    return TONES.get(word, CALM)


def sign(tone_word: str) -> str:
    """The mark beside the colour."""
    return SIGNS[tone_word]


def _date(at: float) -> datetime:
    """Callers choose some of these times: one past the calendar is its end, and no error."""
    return datetime.fromtimestamp(min(max(at, 0.0), LAST_S), UTC)


def utc(at: float | None) -> str:
    """`2026-11-22 14:05:09 UTC`."""
    return "" if at is None else _date(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(at: float | None) -> str:
    """`14:05:09.123`, in UTC."""
    return "" if at is None else _date(at).strftime("%H:%M:%S.%f")[:-3]


def iso(at: float) -> str:
    """For `<time datetime>`."""
    return _date(at).isoformat(timespec="milliseconds")


def since(at: float | None, now_s: float) -> Markup:
    """`4m ago`, with the absolute time behind it."""
    if at is None:
        return Markup("")
    word = ago(at, now_s)
    text = word if word == "now" else f"{word} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso(at), utc(at), text)


def number(value: float) -> str:
    """`12 345`, thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def percent(value: float) -> str:
    """`37 %` of a share between 0 and 1."""
    return f"{value * 100:.0f} %"


def share(value: float) -> str:
    """`99.9 %`, `50 %`: as many digits as a promise has."""
    return f"{value * 100:.4f}".rstrip("0").rstrip(".") + " %"


def dollars(value: float | None) -> str:
    """`$0.0042`, `$12.30`; unknown where nobody knows."""
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def euros(value: float) -> str:
    """`€0.0113`, `€1.20`."""
    return f"€{value:.4f}" if 0 < value < CENTS_FROM else f"€{value:,.2f}"


def plural(count: float, one: str, many: str = "") -> str:
    """`1 call`, `2 calls`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def pretty(value: Any) -> str:  # noqa: ANN401 - any JSON
    """JSON to read."""
    return cut(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())


def cut(text: str) -> str:
    """As much as anybody reads on a page."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}\n… {size(len(text) - SHOWN_CHARS)} more"


FILTERS = {
    "tone": tone,
    "sign": sign,
    "utc": utc,
    "clock": clock,
    "iso": iso,
    "since": since,
    "number": number,
    "percent": percent,
    "share": share,
    "dollars": dollars,
    "euros": euros,
    "plural": plural,
    "pretty": pretty,
    "took": took,
    "short": short,
    "size": size,
}
