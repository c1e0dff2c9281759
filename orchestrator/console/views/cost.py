"""What agents and models cost, by project, model, node, tool or day; and the machines under them.

Models are dollars, machines euros, as their sellers say. A price that nobody knows is said, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.console.links import kept, link, moment
from orchestrator.console.page import Page, Visit
from tasks.scale_wire import ScaleView
from tasks.scopes import Scope
from tasks.wire_costs import CostsView

HERE = "/cost"
BY = ("project", "model", "node", "tool", "day")
SPANS = (("1d", "A day"), ("7d", "7 days"), ("30d", "30 days"), ("365d", "A year"))
ROWS = 200
NOBODY = {"project": "without a project"}


async def load(visit: Visit) -> Mapping[str, Any]:
    """Sums of a time, by one thing."""
    by = visit.said("by") if visit.said("by") in BY else BY[0]
    span = visit.said("since") or "7d"
    query = {"by": by, "since": moment(span, visit.now_s), "project": visit.said("project"), "limit": ROWS}
    costs = await visit.api.get("/v1/costs", CostsView, query)
    most = max((row.cost_usd or 0.0 for row in costs.rows), default=0.0)
    return {
        "costs": costs,
        "rows": [(row, _share(row.cost_usd, most)) for row in costs.rows],
        "by": by,
        "kinds": [(one, link(HERE, **{**kept(visit, "since", "project"), "by": one})) for one in BY],
        "spans": [(one, word, link(HERE, **{**kept(visit, "by", "project"), "since": one})) for one, word in SPANS],
        "span": span,
        "nobody": NOBODY.get(by, "of nobody"),
        "scale": await visit.api.get_or_none("/v1/scale", ScaleView),
    }


def _share(cost_usd: float | None, most: float) -> float:
    return round(100 * (cost_usd or 0.0) / most, 2) if most else 0.0


PAGE = Page(HERE, "Cost", "cost.html", load, scope=Scope.COSTS_READ, group="Records")
