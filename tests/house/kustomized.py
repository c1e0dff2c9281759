"""deploy/kubernetes as a cluster would get it: rendered by kustomize itself, with secrets of this run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SECRETS = (
    "database_url", "redis_url", "token", "join_token", "pool_secret", "key_file", "flower_login",
    "postgres_password", "redis_password", "flower_redis_url", "flower_redis_password",
)  # fmt: skip
OVERLAYS = {
    "small": ("small", ()),
    "production": ("production", ("prometheus-operator", "hpa", "backup")),
    "production with KEDA": (
        "production",
        ("prometheus-operator", "keda", "otlp", "node-exporter", "node-exporter/operator"),
    ),
}
MADE_BY_HAND = {
    "orchestrator-secrets": frozenset(SECRETS[:6]),
    "worker-secrets": frozenset({"join_token"}),
    "flower-secrets": frozenset({"redis_url", "login"}),
    "tls": frozenset({"tls.crt", "tls.key"}),
    "metrics-token": frozenset({"token"}),
}
"""Secrets that docs/kubernetes.md asks for, and their keys."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """One overlay, as a list of manifests."""

    name: str
    manifests: tuple[Manifest, ...]

    def of(self, *kinds: str) -> list[Manifest]:
        """Those of these kinds."""
        return [one for one in self.manifests if one["kind"] in kinds]

    def workloads(self) -> list[Manifest]:
        """What makes pods."""
        return self.of("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")

    def pods(self) -> Iterator[tuple[str, Manifest, Manifest]]:
        """Name, labels and pod of each workload."""
        for one in self.workloads():
            template = template_of(one)
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]

    def keys(self, kind: str) -> dict[str, frozenset[str]]:
        """Of each ConfigMap or Secret."""
        return {one["metadata"]["name"]: frozenset(one.get("data", {})) for one in self.of(kind)}


def template_of(workload: Manifest) -> Manifest:
    """What its pods are made of."""
    spec: Manifest = workload["spec"]["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else workload["spec"]
    template: Manifest = spec["template"]
    return template


def render(root: Path, folder: Path, name: str) -> Rendered:
    """An overlay, with components, in a copy where its secrets are."""
    overlay, components = OVERLAYS[name]
    tree = folder / name.replace(" ", "-")
    shutil.copytree(root / "deploy/kubernetes", tree, ignore=shutil.ignore_patterns("secrets"))
    place = tree / "overlays" / overlay
    (place / "secrets").mkdir(exist_ok=True)
    for secret in SECRETS:
        (place / "secrets" / secret).write_text(f"of this run {secret}")
    page = place / "kustomization.yaml"
    form = yaml.safe_load(page.read_text())
    form["components"] += [f"../../components/{component}" for component in components]
    page.write_text(yaml.safe_dump(form))
    return Rendered(name, tuple(yaml.safe_load_all(_built(place))))


def _built(place: Path) -> str:
    program = shutil.which("kustomize")
    command = [program, "build"] if program else ["kubectl", "kustomize"]
    done = subprocess.run([*command, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def selects(selector: Manifest, labels: Manifest) -> bool:
    """Whether a selector matches, in either of its two forms; an empty one matches everything."""
    wanted = selector.get("matchLabels", {}) if {"matchLabels", "matchExpressions"} & set(selector) else selector
    asked = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        one["operator"] == "In" and labels.get(one["key"]) in one["values"] for one in asked
    )
