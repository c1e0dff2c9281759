"""Writes slo.rules.yml from the objectives that the orchestrator itself counts by: `make docs`.

Multi-window, multi-burn-rate alerts: a page where the budget of four weeks would be gone in two days (14.4x, 6x), a
ticket where it goes too fast (3x, 1x). The short window ends an alert soon after its cause ended. A rate that an
objective cannot reach (half of all calls may be slow: at most 2x) has no alert.

Source: The Site Reliability Workbook, chapter 5, table 5-8; its 30 days are 28 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from orchestrator.observability.objectives import OBJECTIVES, WINDOW_DAYS, Objective

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
BUDGET_WINDOW = f"{WINDOW_DAYS}d"
"""Reckoned less often: it reads weeks of samples. Below 5 min, for which Prometheus believes a sample."""
FILE = Path(__file__).with_name("slo.rules.yml")
HEAD = "# Made by deploy/prometheus/slo.py from orchestrator/observability/objectives.py: `make docs`. Do not edit.\n"
EVENTS = "mcpfleet_objective_events_total"
EVENTS_MIN = 20
"""In the long window: one bad call of three in a quiet night is no reason to wake anybody."""


@dataclass(frozen=True, slots=True)
class Burn:
    """One line of table 5-8."""

    factor: float
    long: str
    short: str
    severity: str


BURNS = (
    Burn(14.4, "1h", "5m", "page"),
    Burn(6.0, "6h", "30m", "page"),
    Burn(3.0, "1d", "2h", "ticket"),
    Burn(1.0, "3d", "6h", "ticket"),
)


def is_reachable(objective: Objective, burn: Burn) -> bool:
    """Whether a share of bad events can be so large."""
    return burn.factor * (1 - objective.target) < 1


def rules() -> dict[str, object]:
    """The whole file. Ratios and the alerts on them are one group: its rules are evaluated in their order."""
    targets = [_target(one) for one in OBJECTIVES]
    burning = [_alert(one, burn) for one in OBJECTIVES for burn in BURNS if is_reachable(one, burn)]
    return {
        "groups": [
            {"name": "mcpfleet-slo", "interval": "30s", "rules": [*targets, *_ratios(WINDOWS), *burning]},
            {"name": "mcpfleet-slo-budget", "interval": "2m", "rules": _ratios((BUDGET_WINDOW,))},
        ]
    }


def _target(objective: Objective) -> dict[str, object]:
    labels = {"objective": objective.name}
    return {"record": "mcpfleet:objective:target", "expr": f"vector({objective.target:g})", "labels": labels}


def _ratios(windows: Sequence[str]) -> list[dict[str, object]]:
    """Share of bad events in each window, and how many events there were."""
    found: list[dict[str, object]] = []
    for window in windows:
        every = f"sum by (objective) (increase({EVENTS}[{window}]))"
        bad = f'sum by (objective) (increase({EVENTS}{{verdict="bad"}}[{window}]))'
        found.append({"record": f"mcpfleet:objective_events:increase{window}", "expr": every})
        found.append({"record": f"mcpfleet:objective_bad:ratio{window}", "expr": f"{bad} / ({every} > 0)"})
    return found


def _alert(objective: Objective, burn: Burn) -> dict[str, object]:
    which, most = f'{{objective="{objective.name}"}}', f"{burn.factor * (1 - objective.target):.6g}"
    return {
        "alert": "ObjectiveBurn",
        "expr": (
            f"mcpfleet:objective_bad:ratio{burn.long}{which} > {most}\n"
            f"and mcpfleet:objective_bad:ratio{burn.short}{which} > {most}\n"
            f"and mcpfleet:objective_events:increase{burn.long}{which} > {EVENTS_MIN}"
        ),
        "labels": {"objective": objective.name, "severity": burn.severity, "factor": f"{burn.factor:g}"},
        "annotations": {
            "summary": f"{objective.title} That is at risk.",
            "description": (
                f"In the last {burn.long} the error budget of {WINDOW_DAYS} days was spent over {burn.factor:g} times "
                "as fast as is allowed: {{ $value | humanizePercentage }} of events were not good."
            ),
            "runbook_url": "docs/runbooks.md#objectiveburn",
        },
    }


def text() -> str:
    """As it is written."""
    return HEAD + yaml.safe_dump(rules(), sort_keys=False, width=1000, allow_unicode=True)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
