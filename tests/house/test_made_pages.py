"""What `make docs` makes from code is what lies there: the page of metrics, the rules of objectives, dashboards."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

METRIC = re.compile(r"\b(?:mcp|mcpfleet)_[a-z0-9_]+\b")
SUFFIXES = re.compile(r"_(?:bucket|sum|count)$")


@pytest.fixture
def dashboards(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The script that writes them, which finds its other half beside it."""
    monkeypatch.syspath_prepend(str(root / "deploy/grafana"))
    yield runpy.run_path(str(root / "deploy/grafana/dashboards.py"))
    sys.modules.pop("panels", None)


def test_the_page_of_metrics_is_what_the_registries_say(root: Path) -> None:
    """No metric is missing, and none is there that nobody counts any more."""
    script = runpy.run_path(str(root / "tests/house/metrics_page.py"))
    stale = set((root / "docs/metrics.md").read_text().splitlines()) ^ set(script["page"]().splitlines())
    assert not sorted(stale), "make docs writes it again"


def test_the_rules_of_objectives_are_those_that_are_counted(root: Path) -> None:
    """One source: what the orchestrator counts by is what Prometheus wakes people by."""
    script = runpy.run_path(str(root / "deploy/prometheus/slo.py"))
    assert (root / "deploy/prometheus/slo.rules.yml").read_text() == script["text"](), "make docs writes it again"


def test_a_cluster_gets_the_same_rules(root: Path) -> None:
    """What wakes people on Kubernetes is what wakes them elsewhere."""
    script = runpy.run_path(str(root / "deploy/prometheus/operator_rules.py"))
    assert script["FILE"].read_text() == script["text"](), "make docs writes it again"


def test_dashboards_are_what_the_code_makes(root: Path, dashboards: dict[str, object]) -> None:
    """An edit in Grafana's own editor belongs into the code."""
    for name in dashboards["DASHBOARDS"]:  # type: ignore[attr-defined]
        made = dashboards["text"](name)  # type: ignore[operator]
        assert (root / f"deploy/grafana/dashboards/{name}.json").read_text() == made, "make docs writes it again"


def test_dashboards_are_told_apart(root: Path) -> None:
    """By uid; panels lie beside each other and not upon each other, and each says what is good."""
    forms = [json.loads(file.read_text()) for file in sorted((root / "deploy/grafana/dashboards").glob("*.json"))]
    assert len({form["uid"] for form in forms}) == len(forms) == 4
    for form in forms:
        taken: set[tuple[int, int]] = set()
        for panel in form["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            assert panel["type"] == "row" or panel["description"], panel["title"]
            taken |= cells


def test_rules_and_dashboards_name_metrics_that_are(root: Path) -> None:
    """A metric that was renamed leaves no alert behind that can never fire."""
    known = set(METRIC.findall((root / "docs/metrics.md").read_text()))
    files = [*(root / "deploy/prometheus").glob("*.yml"), *(root / "deploy/grafana/dashboards").glob("*.json")]
    named = {SUFFIXES.sub("", name) for file in files for name in METRIC.findall(file.read_text())}
    assert not named - known
