"""Every manifest of deploy/kubernetes against the schemas of Kubernetes, strictly: an unknown field is an error.

Rendered by kustomize itself; where there is none these are skipped, and said so. No cluster takes part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.house.kustomized import OVERLAYS, Rendered, render

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing (make setup)")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (make setup)")
pytestmark = pytest.mark.live("kustomize")
VERSIONS = ("1.31", "1.34", "1.37")
"""The oldest with all fields that are used, one between, the newest known."""
TEXT, NUMBER = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_META = {"type": "object", "required": ["name"]}
_LABELS = {"type": "object", "additionalProperties": TEXT}
_BEHAVIOR = {"type": "object"}  # autoscaling/v2's own, which the HorizontalPodAutoscaler's test sees
_RELABELINGS = {
    "type": "array",
    "items": _object(
        ["targetLabel"], targetLabel=TEXT, replacement=TEXT, sourceLabels={"type": "array", "items": TEXT}
    ),
}
_RULE = {
    **_object(["expr"], alert=TEXT, record=TEXT, expr=TEXT, labels=_LABELS, annotations=_LABELS),
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}
_RULE["properties"]["for"] = TEXT
OWN_KINDS = {
    "ScaledObject": _object(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=_object(["name"], apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount=NUMBER,
        maxReplicaCount=NUMBER,
        pollingInterval=NUMBER,
        fallback=_object(
            ["failureThreshold", "replicas"],
            failureThreshold=NUMBER,
            replicas=NUMBER,
            behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
        ),
        advanced=_object([], horizontalPodAutoscalerConfig=_object([], behavior=_BEHAVIOR)),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ["type", "metadata"],
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                metadata=_object(
                    ["serverAddress", "query", "threshold"], serverAddress=TEXT, query=TEXT, threshold=TEXT
                ),
            ),
        },
    ),
    "PodMonitor": _object(
        ["selector", "podMetricsEndpoints"],
        selector=_object(["matchLabels"], matchLabels=_LABELS),
        podMetricsEndpoints={
            "type": "array",
            "items": _object(["port"], port=TEXT, path=TEXT, interval=TEXT, relabelings=_RELABELINGS),
        },
    ),
    "PrometheusRule": _object(
        ["groups"],
        groups={
            "type": "array",
            "items": _object(
                ["name", "rules"], name=TEXT, interval=TEXT, rules={"type": "array", "minItems": 1, "items": _RULE}
            ),
        },
    ),
    "ScrapeConfig": _object(
        ["staticConfigs"],
        scrapeInterval=TEXT,
        metricsPath=TEXT,
        authorization=_object(["credentials"], type=TEXT, credentials=_object(["name", "key"], name=TEXT, key=TEXT)),
        staticConfigs={
            "type": "array",
            "items": _object(["targets"], targets={"type": "array", "items": TEXT}, labels=_LABELS),
        },
    ),
}
"""The part of these custom resources that is used here. Source: the operators' own API references."""
GROUPS = {"ScaledObject": "keda.sh/v1alpha1", "PodMonitor": "monitoring.coreos.com/v1"} | {
    "PrometheusRule": "monitoring.coreos.com/v1",
    "ScrapeConfig": "monitoring.coreos.com/v1alpha1",
}


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Each overlay."""
    return render(root, tmp_path_factory.mktemp("kustomized"), request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_of_its_kind(rendered: Rendered, version: str) -> None:
    """A misspelt field would be dropped by the cluster in silence."""
    assert len(rendered.manifests) > 20
    for one in rendered.manifests:
        if one["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(one, version, strict=True)


def test_custom_resources_have_the_form_their_operators_take(rendered: Rendered) -> None:
    """The validator above knows none of them."""
    for one in rendered.of(*OWN_KINDS):
        assert one["apiVersion"] == GROUPS[one["kind"]]
        jsonschema.validate(one["metadata"], _META)
        jsonschema.validate(one["spec"], OWN_KINDS[one["kind"]])


def test_a_misspelt_field_is_seen(rendered: Rendered) -> None:
    """What makes the two tests above worth their time."""
    (worker,) = (one for one in rendered.of("StatefulSet") if one["metadata"]["name"] == "worker")
    broken = worker | {"spec": worker["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_every_overlay_has_what_it_is_for(rendered: Rendered) -> None:
    """Kinds by overlay: a component that is not applied is easily not noticed."""
    kinds = {(one["kind"], one["metadata"]["name"]) for one in rendered.manifests}
    always = {("Deployment", "orchestrator"), ("StatefulSet", "worker"), ("Deployment", "flower"), ("Ingress", "fleet")}
    own = {
        "small": {("StatefulSet", "postgres"), ("StatefulSet", "redis"), ("CronJob", "backup")},
        "production": {("HorizontalPodAutoscaler", "worker"), ("PodMonitor", "worker"), ("CronJob", "backup")},
        "production with KEDA": {
            ("ScaledObject", "worker"),
            ("ScrapeConfig", "orchestrator"),
            ("DaemonSet", "node-exporter"),
            ("PodMonitor", "node-exporter"),
            ("NetworkPolicy", "to-collector"),
        },
    }
    assert always | own[rendered.name] <= kinds
    assert len([kind for kind in kinds if kind[0] in {"HorizontalPodAutoscaler", "ScaledObject"}]) <= 1
