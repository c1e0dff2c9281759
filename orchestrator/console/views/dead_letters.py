"""Dead letters: what ended badly and why, one of them, and doing it again or forgetting it, one or all of a filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.cli.shortid import short
from orchestrator.console.inside import Query, Refused
from orchestrator.console.links import kept, link, moment, pages
from orchestrator.console.page import Act, Done, Page, Question, Visit
from orchestrator.console.remedies import what_to_do, why
from orchestrator.console.words import plural
from tasks.scopes import Scope
from tasks.wire import DeadLetterView, DiscardView, InvocationView
from tasks.wire import Page as Listing
from tasks.wire_trouble import DeadCountView

HERE = "/dead-letters"
FILTERS = ("reason", "tool", "project")
ROWS = 50
AT_ONCE = 500
"""Letters that one request to the API names."""
ONE_GO = 5000
"""Letters that one press of a button answers: seconds. The page then says how many are left."""
API = "/v1/dead-letters"


async def load(visit: Visit) -> Mapping[str, Any]:
    """How many of each reason, and a page of them."""
    counts = await _counts(visit, {name: visit.said(name) for name in ("tool", "project")})
    is_unanswered = visit.said("unanswered") == "true"
    query: Query = {**kept(visit, *FILTERS, "cursor"), "unanswered": str(is_unanswered).lower(), "limit": ROWS}
    letters = await visit.api.get(API, Listing[DeadLetterView], query)
    older, newest = pages(visit, HERE, letters.next, (*FILTERS, "unanswered"))
    meant = [one for one in counts if visit.said("reason") in ("", one.reason)]
    total, open_ = sum(one.letters for one in meant), sum(one.letters - one.replayed for one in meant)
    where = kept(visit, *FILTERS)
    return {
        "letters": letters.items,
        "counts": [(one, link(HERE, **{**where, "reason": one.reason})) for one in counts],
        "all_link": link(HERE, **{**where, "reason": ""}),
        "total": total,
        "unanswered": open_,
        "older": older,
        "newest": newest,
        "is_filtered": bool(where) or is_unanswered,
        "may_act": visit.may(Scope.INVOCATIONS_WRITE),
        "replay_link": link(f"{HERE}/replay", **where, until=visit.now_s),
        "discard_link": link(f"{HERE}/discard", **where, until=visit.now_s),
        "summary": _summary(total, open_),
    }


async def load_one(visit: Visit) -> Mapping[str, Any]:
    """One letter: what, why, what to do."""
    letter = await visit.api.get(f"{API}/{visit.path['id']}", DeadLetterView)
    code = letter.error.code if letter.error else letter.ending
    return {
        "letter": letter,
        "why": why(letter.reason),
        "what_to_do": what_to_do(code),
        "may_act": visit.may(Scope.INVOCATIONS_WRITE),
    }


async def ask_replay(visit: Visit) -> Question:
    """Before all of a filter are called again."""
    count = await _unanswered(visit)
    sentences = [
        f"{_those(visit)} {plural(count, 'dead letter')} would be called again, each as a new call linked to the old.",
        "What they did before they failed is not undone: a tool that is not safe to repeat may do it twice.",
    ]
    if count > ONE_GO:
        sentences.append(f"The newest {ONE_GO} are called in one go; come back for the rest.")
    title = f"Replay {plural(count, 'dead letter')}?"
    return Question(title, sentences, f"Replay {count}", _back(visit), is_grave=True)


async def replay(visit: Visit) -> Done:
    """In batches: each is called again whole, or not at all."""
    done = 0
    while done < ONE_GO and (ids := await _ids(visit, is_unanswered=True)):
        try:
            again = await visit.api.post(f"{API}:replay", Listing[InvocationView], {"ids": ids})
        except Refused as refused:
            raise _after(refused, done, "replayed") from refused
        done += len(again.items)
    left = await _unanswered(visit)
    rest = f" {plural(left, 'more waits', 'more wait')} here: replay again." if left else ""
    return Done(f"{plural(done, 'dead letter')} called again: the calls page has the new calls.{rest}", _back(visit))


async def ask_discard(visit: Visit) -> Question:
    """Before all of a filter are forgotten."""
    count = sum(one.letters for one in await _counts(visit, _where(visit)))
    sentences = [
        f"{_those(visit)} {plural(count, 'dead letter')} would be forgotten. The calls stay in the history.",
        "Nobody will be reminded of them here again.",
    ]
    if count > ONE_GO:
        sentences.append(f"The newest {ONE_GO} are discarded in one go; come back for the rest.")
    return Question(
        f"Discard {plural(count, 'dead letter')}?", sentences, f"Discard {count}", _back(visit), is_grave=True
    )


async def discard(visit: Visit) -> Done:
    """In batches."""
    done = 0
    while done < ONE_GO and (ids := await _ids(visit, is_unanswered=False)):
        done += (await visit.api.post(f"{API}:discard", DiscardView, {"ids": ids})).discarded
    left = sum(one.letters for one in await _counts(visit, _where(visit)))
    rest = f" {plural(left, 'more is', 'more are')} left: discard again." if left else ""
    return Done(f"{plural(done, 'dead letter')} discarded.{rest}", _back(visit))


async def ask_replay_one(visit: Visit) -> Question:
    """Before one is called again."""
    letter = await visit.api.get(f"{API}/{visit.path['id']}", DeadLetterView)
    said = [f"It ended as {letter.ending}: {letter.error.message if letter.error else letter.reason}."]
    if letter.replayed_as:
        said.append(
            f"It was replayed already, as {short(letter.replayed_as)}: you are led to that call, and no other is made."
        )
    said.append("A new call with the same arguments is accepted, linked to this one. What it did before is not undone.")
    return Question(f"Replay {letter.tool}?", said, "Replay", f"{HERE}/{letter.id}")


async def replay_one(visit: Visit) -> Done:
    """Call it again; the letter then links to the new call."""
    letter = visit.path["id"]
    again = (await visit.api.post(f"{API}:replay", Listing[InvocationView], {"ids": [letter]})).items
    return Done(f"{again[0].tool} is called again as {short(again[0].id)}.", f"{HERE}/{letter}")


async def ask_discard_one(visit: Visit) -> Question:
    """Before one is forgotten."""
    letter = await visit.api.get(f"{API}/{visit.path['id']}", DeadLetterView)
    said = ["The letter is forgotten; the call stays in the history."]
    return Question(f"Discard the dead letter of {letter.tool}?", said, "Discard", f"{HERE}/{letter.id}", is_grave=True)


async def discard_one(visit: Visit) -> Done:
    """Forget it."""
    await visit.api.post(f"{API}:discard", DiscardView, {"ids": [visit.path["id"]]})
    return Done(f"The dead letter of {short(visit.path['id'])} is discarded.", HERE)


def _summary(total: int, open_: int) -> str:
    if not total:
        return ""
    ended = plural(total, "call ended badly", "calls ended badly")
    return (
        f"{ended}; {'nobody has' if open_ == total else 'nothing is to be'} answered yet."
        if open_ in (0, total)
        else (f"{ended}; {plural(open_, 'is', 'are')} not answered yet.")
    )


def _where(visit: Visit) -> dict[str, object]:
    """The filter that a link to an act carries; `until` is when its count was shown."""
    return {**kept(visit, *FILTERS), "until": moment_of(visit)}


def moment_of(visit: Visit) -> float:
    """Letters that came later than this were not on the page whose button was pressed."""
    said = visit.said("until")
    try:
        return min(float(said), visit.now_s)
    except ValueError:
        return moment(said, visit.now_s) or visit.now_s


async def _counts(visit: Visit, where: Mapping[str, object]) -> list[DeadCountView]:
    query = {name: str(value) for name, value in where.items() if value}
    return (await visit.api.get(f"{API}:count", Listing[DeadCountView], query)).items


async def _unanswered(visit: Visit) -> int:
    return sum(one.letters - one.replayed for one in await _counts(visit, _where(visit)))


async def _ids(visit: Visit, *, is_unanswered: bool) -> list[str]:
    query = {name: str(value) for name, value in _where(visit).items()}
    query |= {"unanswered": str(is_unanswered).lower(), "limit": str(AT_ONCE)}
    return [letter.id for letter in (await visit.api.get(API, Listing[DeadLetterView], query)).items]


def _those(visit: Visit) -> str:
    said = [f"{name} {value}" for name, value in kept(visit, *FILTERS).items()]
    return f"With {', '.join(said)}:" if said else "Without a filter:"


def _back(visit: Visit) -> str:
    return link(HERE, **kept(visit, *FILTERS)).removeprefix("/console")


def _after(refused: Refused, done: int, verb: str) -> Refused:
    if not done:
        return refused
    detail = f"{plural(done, 'dead letter')} {verb}, then: {refused.detail}"
    return Refused(refused.status, refused.code, detail, refused.retry_after_s)


PAGES = (
    Page(
        HERE, "Dead letters", "dead_letters.html", load, scope=Scope.INVOCATIONS_READ, group="Work",
        acts=(
            Act(f"{HERE}/replay", Scope.INVOCATIONS_WRITE, ask_replay, replay),
            Act(f"{HERE}/discard", Scope.INVOCATIONS_WRITE, ask_discard, discard),
        ),
    ),
    Page(
        f"{HERE}/{{id}}", "Dead letter", "dead_letter.html", load_one, scope=Scope.INVOCATIONS_READ,
        acts=(
            Act(f"{HERE}/{{id}}/replay", Scope.INVOCATIONS_WRITE, ask_replay_one, replay_one),
            Act(f"{HERE}/{{id}}/discard", Scope.INVOCATIONS_WRITE, ask_discard_one, discard_one),
        ),
    ),
)  # fmt: skip
