"""Panels and dashboards as values, and the JSON that Grafana reads. Knows no metric: dashboards.py does.

Plain dataclasses, for a dashboard is a dozen fields of a documented form; the generated SDK has ten thousand.
Source: Grafana, dashboard JSON model, schemaVersion 39.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA = 39
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT = {"timeseries": 8, "stat": 4, "gauge": 5, "table": 8}


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression. `legend` may name labels as {{label}}."""

    expr: str
    legend: str = ""
    is_instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `description` says what is good, and what to do if it is not."""

    title: str
    queries: tuple[Query, ...]
    description: str
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    is_stacked: bool = False
    least: float | None = None
    most: float | None = None
    steps: tuple[tuple[str, float | None], ...] = ()
    """Colour and from which value; the first has None."""
    has_exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and what is below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page. `variables` are labels of a metric to choose from."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: dict[str, str] = field(default_factory=dict)

    def panels(self) -> list[Panel]:
        """All of them."""
        return [panel for row in self.rows for panel in row.panels]


def form_of(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["mcpfleet"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [{"type": "dashboards", "tags": ["mcpfleet"], "title": "mcpfleet", "asDropdown": True}],
        "templating": {"list": [_datasource(), *(_variable(*one) for one in dashboard.variables.items())]},
        "annotations": {"list": [_alerts()]},
        "panels": _placed(dashboard.rows),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0}


def _variable(name: str, metric: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "definition": f"label_values({metric}, {name})",
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
    }


def _placed(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        found.append({"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": []})
        found[-1]["gridPos"] = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, tallest = y + tallest, 0, 0
            found.append(_panel(panel, len(found) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, HEIGHT[panel.kind])
        y += tallest
    return found


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "color": {"mode": "palette-classic"}}
    defaults |= {key: value for key, value in (("min", panel.least), ("max", panel.most)) if value is not None}
    if panel.steps:
        steps = [{"color": color, "value": at} for color, at in panel.steps]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.is_stacked else "none", "group": "A"}
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 30 if panel.is_stacked else 8, "stacking": stacking}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT[panel.kind]},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [_target(query, chr(ord("A") + at), panel) for at, query in enumerate(panel.queries)],
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "table":
        return {"showHeader": True}
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "auto"}


def _target(query: Query, letter: str, panel: Panel) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": query.is_instant,
        "range": not query.is_instant,
        "format": "table" if panel.kind == "table" else "time_series",
        "exemplar": panel.has_exemplars,
    }
