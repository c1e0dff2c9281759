"""What a schema cannot see of deploy/kubernetes: names that meet, settings that exist, promises of the pages kept."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.house.kustomized import MADE_BY_HAND, OVERLAYS, Manifest, Rendered, render, selects, template_of

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make setup)")
pytestmark = pytest.mark.live("kustomize")
SECRETS_AT = "/run/secrets/mcpfleet"
USERS = {"postgres": 999, "redis": 999, "node-exporter": 65534}
"""Of images that are not ours."""


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Each overlay."""
    return render(root, tmp_path_factory.mktemp("kustomized"), request.param)


def test_every_selector_selects_a_pod(rendered: Rendered) -> None:
    """Services, budgets, policies, spreads and monitors: one that selects nothing does nothing, and says so nowhere."""
    labels = [labels for _, labels, _ in rendered.pods()]
    selectors = [
        *((one, one["spec"]["selector"]) for one in rendered.of("Service", "PodDisruptionBudget", "PodMonitor")),
        *((one, one["spec"]["podSelector"]) for one in rendered.of("NetworkPolicy")),
        *((one, peer["podSelector"]) for one in rendered.of("NetworkPolicy") for peer in _own_peers(one)),
        *((one, spread["labelSelector"]) for one in rendered.workloads() for spread in _spreads(one)),
    ]
    assert len(selectors) > 15
    lost = [
        (one["kind"], one["metadata"]["name"]) for one, s in selectors if not any(selects(s, pod) for pod in labels)
    ]
    assert not lost


def test_every_port_that_is_named_is_there(rendered: Rendered) -> None:
    """Of probes, Services, the Ingress and the policies."""
    ports = {
        name: {p["name"] for c in pod["containers"] for p in c.get("ports", [])} for name, _, pod in rendered.pods()
    }
    for name, _, pod in rendered.pods():
        for container in pod["containers"]:
            assert set(_probe_ports(container)) <= ports[name], name
    for one in rendered.of("Service"):
        (name,) = (name for name, labels, _ in rendered.pods() if selects(one["spec"]["selector"], labels))
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports[name]
    offered = {one["metadata"]["name"]: {p["name"] for p in one["spec"]["ports"]} for one in rendered.of("Service")}
    for one in rendered.of("Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                assert service["port"]["name"] in offered[service["name"]]
    for one in rendered.of("NetworkPolicy"):
        named = {port["port"] for port in _policy_ports(one) if isinstance(port["port"], str)}
        assert named <= set().union(*ports.values()), one["metadata"]["name"]


def test_every_secret_and_config_that_is_used_is_made_or_asked_for(rendered: Rendered) -> None:
    """And each key that a setting names a file of."""
    secrets = MADE_BY_HAND | rendered.keys("Secret") if rendered.of("Secret") else MADE_BY_HAND
    configs = rendered.keys("ConfigMap")
    for name, _, pod in rendered.pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]} | _claims(rendered, name)
        for container in pod["containers"]:
            files: dict[str, frozenset[str]] = {}
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                if "secret" in volume:
                    there = secrets[volume["secret"]["secretName"]]
                    items = volume["secret"].get("items", [{"key": key, "path": key} for key in there])
                    assert {item["key"] for item in items} <= there, name
                    files[mount["mountPath"]] = frozenset(item["path"] for item in items)
                if "configMap" in volume:
                    files[mount["mountPath"]] = configs[volume["configMap"]["name"]]
            wanted = {value for value in _environment(rendered, container).values() if _is_in(value, files)}
            wanted |= set(re.findall(r"/run/secrets/\w+/\w+", str(container.get("args", ""))))
            missing = [path for path in wanted if Path(path).name not in files[str(Path(path).parent)]]
            assert wanted or name == "node-exporter", name
            assert not missing, name
    claims = {one["metadata"]["name"] for one in rendered.of("PersistentVolumeClaim")}
    used = [v["persistentVolumeClaim"]["claimName"] for _, _, pod in rendered.pods() for v in pod["volumes"] if
            "persistentVolumeClaim" in v]  # fmt: skip
    assert set(used) == claims, "and no volume is asked for that nobody mounts"


def test_every_setting_is_one(rendered: Rendered, tmp_path: Path) -> None:
    """An unknown variable stops a start; a value that a setting refuses does, too. Read as the processes do."""
    from orchestrator.cli.fleet import NOT_OURS
    from orchestrator.flower.settings import read_flower_settings
    from orchestrator.settings import OrchestratorSettings
    from tasks.settings import read
    from worker.settings import PREFIX, NodeSettings

    for key in set().union(*MADE_BY_HAND.values()):
        (tmp_path / key).write_text(f"user:{key}\n")
    given = {
        name: {
            variable: value.replace("$(POD_IP)", "10.0.0.7").replace(SECRETS_AT, str(tmp_path))
            for variable, value in _environment(rendered, pod["containers"][0]).items()
        }
        for name, _, pod in rendered.pods()
    }
    orchestrator = read(OrchestratorSettings, "MCPFLEET_", given["orchestrator"], excluding=NOT_OURS)
    assert orchestrator.advertise == "10.0.0.7:8700"
    assert orchestrator.url_for_nodes == "http://orchestrator:8700"
    assert orchestrator.pool_secret is not None
    assert orchestrator.pool_secret.get_secret_value() == "user:pool_secret"
    node = read(NodeSettings, PREFIX, given["worker"])
    assert (node.name, node.url, node.http_port) == ("worker-0", "http://10.0.0.7:8701", 8701)
    assert node.join_token.get_secret_value() == "user:join_token"
    flower = read_flower_settings(given["flower"])
    assert (flower.credentials(), flower.broker_url()) == (("user", "login"), "user:redis_url")
    if "backup" in given:
        asked = {name: value for name, value in given["backup"].items() if name != "BACKUPS_KEPT"}
        backup = read(OrchestratorSettings, "MCPFLEET_", asked, given={"token": "-", "join_token": "-"})
        assert (backup.database_url, backup.blob_dir) == ("user:database_url", orchestrator.blob_dir)
    if rendered.name == "production with KEDA":
        assert orchestrator.otlp_endpoint == node.otlp_endpoint == "http://collector.monitoring.svc:4318"
    for name in ("orchestrator", "worker", "flower"):
        assert {one for one in given[name] if not one.startswith("MCPFLEET_")} <= {"POD_IP"}


def test_every_pod_is_restricted(rendered: Rendered) -> None:
    """The Pod Security Standard `restricted`, and more: a read-only root, no token of the cluster's API."""
    (namespace,) = rendered.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, _, pod in rendered.pods():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == USERS.get(name, 10001), name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["serviceAccountName"] in {one["metadata"]["name"] for one in rendered.of("ServiceAccount")}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
            "configMap", "emptyDir", "persistentVolumeClaim", "secret",
        }  # fmt: skip
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"requests", "limits"} <= set(container["resources"]), name
            assert "memory" in container["resources"]["limits"], name
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


def test_budgets_let_one_pod_go_and_no_more(rendered: Rendered) -> None:
    """One that allows none would stop every upgrade of the cluster; one that allows all would be none."""
    replicas = {one["metadata"]["name"]: one["spec"].get("replicas") for one in rendered.workloads()}
    budgets = {one["metadata"]["name"]: one["spec"] for one in rendered.of("PodDisruptionBudget")}
    assert set(budgets) == {"orchestrator", "worker"}
    for name, budget in budgets.items():
        assert 1 <= budget["maxUnavailable"] <= replicas[name], name
        assert "minAvailable" not in budget


def test_a_node_has_time_to_drain(rendered: Rendered) -> None:
    """The pod's grace is longer than everything its process does after SIGTERM."""
    from worker.drain import SETTLE_S, STOP_S

    (worker,) = (one for one in rendered.of("StatefulSet") if one["metadata"]["name"] == "worker")
    pod = worker["spec"]["template"]["spec"]
    drain_s = float(_environment(rendered, pod["containers"][0])["MCPFLEET_NODE_DRAIN_S"])
    assert pod["terminationGracePeriodSeconds"] > drain_s + STOP_S + SETTLE_S + SETTLE_S
    assert "preStop" not in str(pod), "SIGTERM is the drain"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    (claim,) = worker["spec"]["volumeClaimTemplates"]
    state_dir = _environment(rendered, pod["containers"][0])["MCPFLEET_NODE_STATE_DIR"]
    assert state_dir.startswith(mounts[claim["metadata"]["name"]]), "its journal outlives the pod"
    assert worker["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"


def test_no_probe_ends_what_only_waits(rendered: Rendered) -> None:
    """Liveness never asks for what is another's: the leader, the database, the orchestrator."""
    pods = {name: pod["containers"][0] for name, _, pod in rendered.pods() if name != "backup"}
    for name, container in pods.items():
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), name
        liveness = container["livenessProbe"]
        assert liveness.get("httpGet", {}).get("path") != "/health", name
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 120, name
    from orchestrator.settings import OrchestratorSettings

    readiness = pods["orchestrator"]["readinessProbe"]
    failover_s = OrchestratorSettings.model_fields["leader_ttl_s"].default
    bears_s = readiness["periodSeconds"] * (readiness["failureThreshold"] - 1)
    assert bears_s >= 3 * failover_s, "a failover takes no replica out"


def test_replicas_share_a_volume_that_replicas_can_share(rendered: Rendered) -> None:
    """Two on a volume of one machine would never start beside each other; one alone needs no more."""
    (orchestrator,) = (one for one in rendered.of("Deployment") if one["metadata"]["name"] == "orchestrator")
    claims = {one["metadata"]["name"]: one for one in rendered.of("PersistentVolumeClaim")}
    claim = claims["orchestrator-state"]
    is_shared = claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert is_shared is (orchestrator["spec"]["replicas"] > 1)
    assert is_shared is (orchestrator["spec"]["strategy"].get("type", "RollingUpdate") == "RollingUpdate")


def test_only_who_has_to_reaches_the_database(rendered: Rendered) -> None:
    """Nobody by default; the database hears the orchestrator alone, and only it may ask."""
    policies = {one["metadata"]["name"]: one["spec"] for one in rendered.of("NetworkPolicy")}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    pods = {name: labels for name, labels, _ in rendered.pods()}
    backup = {"backup"} & set(pods)
    for port, may in (("postgres", {"orchestrator"} | backup), ("redis", {"orchestrator", "worker", "flower"})):
        number = {"postgres": 5432, "redis": 6379}[port]
        askers = set()
        for policy in policies.values():
            if any(p["port"] in {port, number} for rule in policy.get("egress", []) for p in rule.get("ports", [])):
                askers |= {name for name, labels in pods.items() if selects(policy["podSelector"], labels)}
        assert askers == may, port
        if port not in pods:
            continue
        hears = [policy for policy in policies.values() if selects(policy["podSelector"], pods[port])]
        peers = [peer for policy in hears for rule in policy.get("ingress", []) for peer in rule["from"]]
        let_in = {name for name, labels in pods.items() for peer in peers if selects(peer["podSelector"], labels)}
        assert let_in == may, port


def test_what_is_configured_anew_is_started_anew(rendered: Rendered) -> None:
    """Generated names carry a hash: a changed setting rolls the pods, and an old one is not read by a new pod."""
    assert all(re.search(r"-[a-z0-9]{10}$", name) for name in rendered.keys("ConfigMap") | rendered.keys("Secret"))


def test_images_are_pinned_and_ours_are_of_this_version(rendered: Rendered) -> None:
    """No `latest`: a pod that is made again is the same."""
    for _, _, pod in rendered.pods():
        for container in pod["containers"]:
            tag = container["image"].rpartition(":")[2]
            assert re.match(r"v?\d", tag), container["image"]


def test_there_is_a_page_for_every_secret_made_by_hand(root: Path) -> None:
    """The production overlay makes none, so somebody has to know their keys."""
    page = (root / "docs/kubernetes.md").read_text()
    for name, keys in MADE_BY_HAND.items():
        assert f"`{name}`" in page
        assert not [key for key in keys if f"`{key}`" not in page]


def test_jobs_have_the_names_that_rules_and_dashboards_know(rendered: Rendered, root: Path) -> None:
    """The operator would name them after the monitor, and a panel that asks by `job` would stay empty."""
    known = {one["job_name"] for one in yaml.safe_load((root / "deploy/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]}  # fmt: skip
    endpoints = [end for one in rendered.of("PodMonitor") for end in one["spec"]["podMetricsEndpoints"]]
    named = [rule["replacement"] for end in endpoints for rule in end["relabelings"] if rule["targetLabel"] == "job"]
    static = [each["labels"]["job"] for one in rendered.of("ScrapeConfig") for each in one["spec"]["staticConfigs"]]
    assert len(named) == len(endpoints)
    assert {*named, *static} <= known
    if "KEDA" in rendered.name:
        assert {*named, *static} == known


def test_the_namespace_is_the_same_everywhere(rendered: Rendered) -> None:
    """A target in a monitor names it in full."""
    spaces = {one["metadata"].get("namespace", "mcpfleet") for one in rendered.manifests}
    assert spaces == {"mcpfleet"}
    for one in rendered.of("ScrapeConfig"):
        (target,) = (target for entry in one["spec"]["staticConfigs"] for target in entry["targets"])
        service, namespace = target.split(".")[:2]
        assert service in {each["metadata"]["name"] for each in rendered.of("Service")}
        assert namespace == "mcpfleet"


def _environment(rendered: Rendered, container: Manifest) -> dict[str, str]:
    given: dict[str, str] = {}
    configs = {one["metadata"]["name"]: one["data"] for one in rendered.of("ConfigMap")}
    for source in container.get("envFrom", []):
        given |= configs[source["configMapRef"]["name"]]
    for one in container.get("env", []):
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        given[one["name"]] = {"metadata.name": "worker-0", "status.podIP": "10.0.0.7"}[field] if field else one["value"]
    order = [one["name"] for one in container.get("env", [])]
    for before, after in pairwise(order):  # $(NAME) is put in only where NAME came before
        if f"$({after})" in given[before]:
            pytest.fail(f"{before} names {after}, which comes later")
    return given


def _own_peers(policy: Manifest) -> list[Manifest]:
    rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
    peers = [peer for rule in rules for peer in [*rule.get("from", []), *rule.get("to", [])]]
    return [peer for peer in peers if "podSelector" in peer and "namespaceSelector" not in peer]


def _policy_ports(policy: Manifest) -> list[Manifest]:
    rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
    return [port for rule in rules for port in rule.get("ports", [])]


def _spreads(workload: Manifest) -> list[Manifest]:
    spreads: list[Manifest] = template_of(workload)["spec"].get("topologySpreadConstraints", [])
    return spreads


def _probe_ports(container: Manifest) -> list[str]:
    probes = [container.get(name, {}) for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    return [probe[how]["port"] for probe in probes for how in ("httpGet", "tcpSocket") if how in probe]


def _claims(rendered: Rendered, name: str) -> dict[str, Manifest]:
    (workload,) = (one for one in rendered.workloads() if one["metadata"]["name"] == name)
    return {one["metadata"]["name"]: one for one in workload["spec"].get("volumeClaimTemplates", [])}


def _is_in(value: str, files: dict[str, frozenset[str]]) -> bool:
    return str(Path(value).parent) in files
