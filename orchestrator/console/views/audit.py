"""The audit log: who did what, when, and how it was decided; and whether the log is what was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from orchestrator.console.links import kept, moment, pages
from orchestrator.console.page import Act, Done, Page, Question, Visit
from tasks.invocation import FLEET_TENANT
from tasks.scopes import Scope
from tasks.wire import Page as Listing
from tasks.wire_audit import AuditCheckView, AuditRowView

HERE = "/audit"
FILTERS = ("actor", "action", "target", "decision", "since", "until")
DECISIONS = ("allowed", "refused", "failed", "noted")
ROWS = 50


async def load(visit: Visit) -> Mapping[str, Any]:
    """A page of rows, newest first."""
    said = kept(visit, *FILTERS, "cursor")
    query: dict[str, str | float | None] = {**said, "limit": ROWS}
    for name in ("since", "until"):
        query[name] = moment(said.get(name, ""), visit.now_s)
    rows = await visit.api.get("/v1/audit", Listing[AuditRowView], query)
    older, newest = pages(visit, HERE, rows.next, FILTERS)
    return {
        "rows": [(row, details(row)) for row in rows.items],
        "older": older,
        "newest": newest,
        "decisions": DECISIONS,
        "is_filtered": bool(kept(visit, *FILTERS)),
        "sees_all": visit.me.tenant == FLEET_TENANT,
    }


async def load_report(visit: Visit) -> Mapping[str, Any]:
    """How the look stands that began last."""
    check = await visit.api.get("/v1/audit:verify", AuditCheckView)
    return {"check": check, "report": check.report, "is_over": not check.is_running}


async def ask_verify(_visit: Visit) -> Question:
    """Whoever comes to this address without the page's form."""
    said = ["Every row is read and hashed, beside the fleet's work: some seconds for a hundred thousand."]
    return Question("Verify the audit log?", said, "Verify", f"{HERE}/verify")


async def verify(visit: Visit) -> Done:
    """Begin, or go along with the look that goes on already."""
    check = await visit.api.post("/v1/audit:verify", AuditCheckView)
    return Done("Every row is looked at." if check.is_running else "Every row was looked at.", f"{HERE}/verify")


def details(row: AuditRowView) -> str:
    """A row's small form as `name value`."""
    form = orjson.loads(row.details_json)
    return (
        ", ".join(f"{name} {_word(value)}" for name, value in form.items())
        if isinstance(form, dict)
        else row.details_json
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


PAGES = (
    Page(
        f"{HERE}/verify", "Verify", "audit_report.html", load_report, scope=Scope.AUDIT_READ,
        acts=(Act(f"{HERE}/verify/now", Scope.AUDIT_READ, ask_verify, verify),),
    ),
    Page(HERE, "Audit", "audit.html", load, scope=Scope.AUDIT_READ, group="Records", is_live=False),
)  # fmt: skip
