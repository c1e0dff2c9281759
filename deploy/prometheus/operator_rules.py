"""Writes the rules of this folder as a PrometheusRule, for clusters with the Prometheus operator: `make docs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
RULES = ("alerts.rules.yml", "slo.rules.yml")
FILE = FOLDER.parent / "kubernetes/components/prometheus-operator/rules.yaml"
HEAD = "# Made by deploy/prometheus/operator_rules.py from the rules beside it: `make docs`. Do not edit.\n"


def rule() -> dict[str, Any]:
    """The whole resource. Source: the operator's API reference, monitoring.coreos.com/v1."""
    forms = [yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in RULES]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "mcpfleet"},
        "spec": {"groups": [group for form in forms for group in form["groups"]]},
    }


def text() -> str:
    """As it is written."""
    return HEAD + yaml.safe_dump(rule(), sort_keys=False, width=1000, allow_unicode=True)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
