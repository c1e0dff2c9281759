"""Questions of runs to people: which are open, one of them with its exact arguments, and the answer to it.

An answer names the digest of the arguments, made here from what the page showed: not what was said to be their digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.console.inside import Query, Refused
from orchestrator.console.links import pages
from orchestrator.console.page import Act, Done, Page, Question, Visit
from orchestrator.console.words import plural
from tasks.approval import REASON_MAX_CHARS, ApprovalState, Verdict, canonical, digest, shown, shown_line
from tasks.approval_wire import ApprovalView
from tasks.scopes import Scope
from tasks.wire import Page as Listing

HERE = "/approvals"
OPEN = 100
ANSWERED = 25
BRIEF_CHARS = 160
OVER = sorted(set(ApprovalState) - {ApprovalState.WAITING})


async def load(visit: Visit) -> Mapping[str, Any]:
    """Open ones, those that end first before others; then a page of those that are over."""
    query: Query = {"state": ApprovalState.WAITING.value, "limit": OPEN}
    waiting = await visit.api.get("/v1/approvals", Listing[ApprovalView], query)
    query = {"state": OVER, "limit": ANSWERED, "cursor": visit.said("cursor")}
    answered = await visit.api.get("/v1/approvals", Listing[ApprovalView], query)
    older, newest = pages(visit, HERE, answered.next, ())
    count = len(waiting.items)
    more = "more than " if waiting.next else ""
    return {
        "waiting": sorted(waiting.items, key=lambda one: one.expires_at),
        "answered": answered.items,
        "older": older,
        "newest": newest,
        "brief": brief,
        "line": shown_line,
        "may_answer": visit.may(Scope.APPROVALS_WRITE),
        "summary": f"{more}{plural(count, 'run waits', 'runs wait')} for a person." if count else "",
    }


async def load_one(visit: Visit) -> Mapping[str, Any]:
    """One, with all of its arguments."""
    asked = await visit.api.get(f"/v1/approvals/{visit.path['id']}", ApprovalView)
    return {
        "asked": asked,
        "arguments": [(shown_line(name), text(value)) for name, value in sorted(asked.arguments.items())],
        "sha256": digest(canonical(asked.arguments)),
        "line": shown_line,
        "reason_max": REASON_MAX_CHARS,
        "is_open": asked.state is ApprovalState.WAITING,
        "may_answer": visit.may(Scope.APPROVALS_WRITE),
        "may_read": visit.may(Scope.INVOCATIONS_READ),
    }


async def ask(visit: Visit) -> Question:
    """Whoever comes to this address without the page's form is led to the page."""
    asked = await visit.api.get(f"/v1/approvals/{visit.path['id']}", ApprovalView)
    said = ["Look at its exact arguments first: the page of the question has them, and the two buttons."]
    fields = (("sha256", "SHA-256 of the arguments, as the page shows it", 64), ("answer", "allow or deny", 5))
    return Question(f"Answer {shown_line(asked.tool)}?", said, "Answer", f"{HERE}/{asked.id}", fields=fields)


async def answer(visit: Visit) -> Done:
    """Allow or deny what was shown."""
    said = visit.form.get("answer", "")
    if said not in set(Verdict):
        raise Refused(422, "bad_input", "say allow or deny: press one of the two buttons")
    body = {
        "answer": said,
        "arguments_sha256": visit.form.get("sha256", ""),
        "reason": visit.form.get("reason", "").strip(),
    }
    view = await visit.api.post(f"/v1/approvals/{visit.path['id']}", ApprovalView, body)
    return Done(f"{shown_line(view.tool)} is {view.state}. The run is told.", HERE)


def text(value: object) -> str:
    """An argument to read: text as it is, the rest as JSON; what could deceive a reader is escaped."""
    return shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2))


def brief(asked: ApprovalView) -> str:
    """The argument that says most, on one line."""
    for name in ("command", "file_path", "path", "url"):
        if isinstance(asked.arguments.get(name), str):
            return _cut(shown_line(str(asked.arguments[name])))
    return _cut(shown_line(json.dumps(asked.arguments, ensure_ascii=False, sort_keys=True)))


def _cut(line: str) -> str:
    return line if len(line) <= BRIEF_CHARS else f"{line[:BRIEF_CHARS]}…"


PAGES = (
    Page(HERE, "Approvals", "approvals.html", load, scope=Scope.APPROVALS_READ, group="Work"),
    Page(
        f"{HERE}/{{id}}", "Question", "approval.html", load_one, scope=Scope.APPROVALS_READ,
        acts=(Act(f"{HERE}/{{id}}/answer", Scope.APPROVALS_WRITE, ask, answer),),
    ),
)  # fmt: skip
