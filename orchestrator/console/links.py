"""Links of a page to itself with another filter, and times as people write them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from orchestrator.cli.durations import parse_s
from orchestrator.cli.exits import BadInput
from orchestrator.console.inside import Refused
from orchestrator.console.page import Visit

INVALID = 422


def link(path: str, **query: object) -> str:
    """A path below /console with what of the query is said."""
    said = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"/console{path}" + (f"?{urlencode(said, doseq=True)}" if said else "")


def kept(visit: Visit, *names: str) -> dict[str, str]:
    """Those words of the query that were said, to be said again."""
    return {name: said for name in names if (said := visit.said(name))}


def pages(visit: Visit, path: str, following: str | None, names: Sequence[str]) -> tuple[str, str]:
    """Links to the page that follows and to the first one; empty where there is none."""
    query = kept(visit, *names)
    older = link(path, **query, cursor=following) if following else ""
    return older, link(path, **query) if visit.said("cursor") else ""


def moment(text: str, now_s: float) -> float | None:
    """`2h`, `7d` (so long ago) or `2026-11-21 14:05` (UTC) as seconds since the epoch; None for nothing.

    Raises:
        Refused: it is neither.
    """
    if not text:
        return None
    try:
        return now_s - parse_s(text.removesuffix("ago").strip())
    except BadInput:
        pass
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        wrong = f"{text[:80]!r} is no time: write how long ago (20m, 2h, 7d), or 2026-11-21 14:05 in UTC"
        raise Refused(INVALID, "bad_input", wrong) from None


def duration_s(text: str) -> float:
    """`30m`, `2h`, `1d`, in seconds.

    Raises:
        Refused: it is none.
    """
    try:
        return parse_s(text)
    except BadInput:
        wrong = f"{text[:80]!r} is no duration: write 30m, 2h or 1d"
        raise Refused(INVALID, "bad_input", wrong) from None
