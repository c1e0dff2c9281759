"""Every check of `mcpfleet doctor` is seen to find what it looks for, and to name how to mend it."""

from __future__ import annotations

import datetime as dt
import email.utils
import re
import resource
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.cli.api import Api
from orchestrator.cli.checkup import _clock, _ledger, _nodes, _packages, _python, _redis, _redis_url, _state
from orchestrator.cli.checkup_broker import _access
from orchestrator.cli.checkup_door import check_door_certificate, judged
from orchestrator.cli.checkup_exposure import check_flower, check_sealing
from orchestrator.cli.checkup_files import FREE_FAIL, FREE_WARN, check_blobs, check_disks, check_files, disk
from orchestrator.cli.checkup_fleet import check_fleet, metrics_door
from orchestrator.cli.checkup_ledger import LEDGER_MAX, WAL_MAX, check_ledger, kind_of, place, size
from orchestrator.cli.checkup_machine import (
    apart_of,
    check_dependencies,
    check_node_tools,
    check_otlp,
    check_time,
    open_files,
    unmet_of,
)
from orchestrator.cli.findings import Finding, Health
from tasks.wire import NodeView
from tests.conftest import ROOT

NOW = 1_800_000_000.0
DAY_S = 86_400.0
OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP


def _all(findings: Any) -> dict[str, Health]:
    found: list[Finding] = list(findings)
    assert all(one.mend for one in found if one.health in {WARN, FAIL}), "each says how to mend it"
    return {one.id: one.health for one in found}


def _certificate(path: Path, *, ends_in_s: float, good_for_s: float = 400 * DAY_S) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet")])
    ends = dt.datetime.fromtimestamp(NOW + ends_in_s, dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, ends - dt.timedelta(seconds=good_for_s), ends).sign(
        key, hashes.SHA256()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return str(path)


@pytest.mark.parametrize(
    ("ends_in_s", "found"),
    [(90 * DAY_S, {"files": OK}), (5 * DAY_S, {"certificate": WARN}), (-1.0, {"certificate": FAIL})],
)
def test_certificates_that_end_soon_are_found(tmp_path: Path, ends_in_s: float, found: dict[str, Health]) -> None:
    """Weeks before, and after."""
    file = _certificate(tmp_path / "c.pem", ends_in_s=ends_in_s)
    assert _all(check_files({"MCPFLEET_TLS_CERT": file}, NOW)) == found


def test_files_that_are_wrong_missing_or_open_to_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is none, a key that everybody can read, one that is not there. Modes of mounts are theirs."""
    text = tmp_path / "text"
    text.write_text("no certificate")
    text.chmod(0o644)
    assert _all(check_files({"MCPFLEET_REDIS_CA": str(text)}, NOW)) == {"certificate": FAIL}
    assert _all(check_files({"MCPFLEET_KEY_FILE": str(text)}, NOW)) == {"key": WARN}
    assert _all(check_files({"MCPFLEET_TLS_KEY": str(tmp_path / "gone")}, NOW)) == {"key": FAIL}
    with monkeypatch.context() as docker:
        docker.setattr("orchestrator.cli.checkup_files.MOUNTED", (str(tmp_path),))
        assert _all(check_files({"MCPFLEET_KEY_FILE": str(text)}, NOW)) == {"files": OK}
    text.chmod(0o600)
    assert _all(check_files({"MCPFLEET_REDIS_URL_FILE": str(text)}, NOW)) == {"files": OK}


def test_disks_that_fill_are_found(tmp_path: Path) -> None:
    """Before the ledger refuses to accept, and when it is about to."""
    health = [disk("ledger", tmp_path, free).health for free in (FREE_WARN, FREE_WARN - 1, FREE_FAIL - 1)]
    assert health == [OK, WARN, FAIL]
    assert set(_all(check_disks({"ledger": tmp_path, "node": tmp_path / "gone"}))) == {"disk"}


def test_a_blob_store_that_cannot_be_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the answer of the system is played."""
    assert _all(check_blobs(tmp_path)) == {"blobs": OK}
    monkeypatch.setattr("os.access", lambda *_: False)
    assert _all(check_blobs(tmp_path)) == {"blobs": FAIL}


def test_a_ledger_that_is_missing_old_or_swollen_is_found(tmp_path: Path) -> None:
    """Its schema, its size, and a write-ahead log that a reader holds up."""
    import sqlite3

    assert _all(check_ledger(None)) == {"ledger": SKIP}
    path = tmp_path / "ledger.db"
    assert _all(check_ledger(f"sqlite:///{path}")) == {"ledger": FAIL}
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (id)")
    assert _all(check_ledger(f"sqlite:///{path}")) == {"ledger": FAIL}
    assert [size(1, 1).health, size(1, WAL_MAX + 1).health, size(LEDGER_MAX + 1, 1).health] == [OK, WARN, WARN]


def test_packages_of_other_versions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, too old, and not as the lock says; what is for another Python is not missing."""
    have = {"celery": "5.0", "rich": "14.1"}
    wanted = ["celery>=5.5", "rich", "redis>=6", "old; python_version < '3'"]
    assert list(unmet_of(wanted, have.get)) == ["celery is 5.0, wanted >=5.5", "redis is not installed"]
    lock = "celery==5.0 \\\n    --hash=sha256:0\nrich==14.2 \\\nrich==9 ; python_version < '3'\n# by hand\nredis==1\n"
    assert list(apart_of(lock, have.get)) == ["rich 14.1 instead of 14.2"]
    monkeypatch.setattr("orchestrator.cli.checkup_machine._installed", have.get)
    assert _all(check_dependencies(None)) == {"dependencies": FAIL}


@pytest.mark.parametrize(("soft", "health"), [(65_536, OK), (resource.RLIM_INFINITY, OK), (1023, WARN), (256, FAIL)])
def test_too_few_open_files_are_found(soft: int, health: Health) -> None:
    """Each node, caller and stream is one."""
    assert open_files(soft).health is health


def test_what_a_node_lacks_is_found_where_one_runs(tmp_path: Path) -> None:
    """Sandbox tools and control groups; an operator's laptop needs none of them."""
    assert not list(check_node_tools({"PATH": ""}, tmp_path))
    lacks = _all(check_node_tools({"PATH": "", "MCPFLEET_NODE_POOL": "p"}, tmp_path))
    assert lacks == {"tool": WARN, "cgroups": WARN}
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert _all(check_node_tools({"PATH": "", "MCPFLEET_NODE_POOL": "p"}, tmp_path))["cgroups"] is OK


def test_a_collector_that_is_not_there_is_found() -> None:
    """Asked by a connection; nothing is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert _all(check_otlp({"MCPFLEET_OTLP_ENDPOINT": url})) == {"otlp": OK}
    for name in ("MCPFLEET_OTLP_ENDPOINT", "MCPFLEET_NODE_OTLP_ENDPOINT"):
        assert _all(check_otlp({name: url})) == {"otlp": WARN}
    assert not list(check_otlp({}))


SHARED = {"MCPFLEET_HOST": "0.0.0.0"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, {}),
        ({"MCPFLEET_SEAL_DELIVERIES": "false"}, {}),
        (SHARED, {"sealing": WARN}),
        (SHARED | {"MCPFLEET_KEY_FILE": "/k"}, {"sealing": OK}),
        (SHARED | {"MCPFLEET_KEY_FILE": "/k", "MCPFLEET_SEAL_DELIVERIES": "false"}, {"sealing": FAIL}),
        ({"MCPFLEET_REDIS_URL": "redis://broker:6379", "MCPFLEET_SEAL_DELIVERIES": "0"}, {"sealing": FAIL}),
    ],
)
def test_what_a_shared_fleet_must_seal_is_found(environ: dict[str, str], found: dict[str, Health]) -> None:
    """One machine for itself may leave it; others' Redis is read by others."""
    assert _all(check_sealing(environ)) == found


def test_a_flower_that_is_away_is_found() -> None:
    """Also one whose settings are wrong; none where none is set."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert _all(check_flower({}, f"http://fleet:word@127.0.0.1:{port}/tasks")) == {"flower": FAIL}
    assert _all(check_flower({"MCPFLEET_FLOWER_LOGIN": "no-colon"}, "")) == {"flower": FAIL}
    assert not list(check_flower({"MCPFLEET_FLOWER_FEED": "false"}, ""))


def _node(**more: Any) -> dict[str, Any]:
    return {
        "name": "a1", "pool": "p", "state": "active", "lease_left_s": 5.0, "slots": {}, "running": {},
        "outstanding": {}, "cpu": 0.0, "memory": 0.0, "capabilities": [], "tools": 1, "location": "",
        "visibility": "public", "labels": {}, "version": "1.0", "url": "http://node",
    } | more  # fmt: skip


def _fleet(
    nodes: list[dict[str, Any]], *, ahead_s: float = 0.0, is_open: bool = False, more: dict[str, Any] | None = None
) -> Any:
    """The findings of a fleet that answers so."""
    answers: dict[str, Any] = {
        "/v1/nodes": {"items": nodes},
        "/health": {"status": "ok", "version": "1.0"},
        "/v1/scale": {"cluster": "c", "is_dry": False, "budget_eur_h": None, "max_machines": None, "cost_eur_h": 0.0,
                      "pools": [], "alerts": []},
        "/v1/scale/claims": {"items": []},
        "/v1/keys": {"items": []},
    } | (more or {})  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.url.host == "node":
            return httpx.Response(200, headers={"date": email.utils.formatdate(NOW + ahead_s, usegmt=True)})
        if path == "/metrics":
            return httpx.Response(200 if is_open else 401)
        if answers.get(path) is None:
            return httpx.Response(403, json={"detail": "no", "code": "forbidden", "status": 403})
        return httpx.Response(200, json=answers[path])

    transport = httpx.MockTransport(answer)
    with Api("http://fleet", "token", transport) as api, httpx.Client(transport=transport) as http:
        return _all(check_fleet(api, NOW, http.get))


WELL = {
    "versions": OK, "circuits": OK, "node-clocks": OK, "metrics": OK, "machines": OK, "api-keys": OK,
}  # fmt: skip


def test_a_well_fleet_is_well() -> None:
    """Nothing is found where nothing is."""
    assert _fleet([_node()]) == WELL


@pytest.mark.parametrize(
    ("wrong", "given"),
    [
        ("versions", {"nodes": [_node(version="0.9")]}),
        ("circuits", {"nodes": [_node(circuits={"git": "5 of 5 failed"})]}),
        ("circuits", {"nodes": [_node(unhealthy={"": "no answer"})]}),
        ("node-clocks", {"nodes": [_node()], "ahead_s": 60.0}),
        ("node-clocks", {"nodes": [_node(clock_ahead_s=-60.0)]}),
        ("metrics", {"nodes": [_node()], "is_open": True}),
    ],
)
def test_what_is_wrong_with_nodes_and_doors_is_found(wrong: str, given: dict[str, Any]) -> None:
    """Each alone, and the rest stays well."""
    assert _fleet(**given) == WELL | {wrong: WARN}


def test_machines_left_over_and_keys_that_end_are_found() -> None:
    """Where these credentials may see them; else they are left out."""
    claim = {
        "claim": "c", "node": "n", "pool": "p", "state": "ready", "state_at": 0.0, "provider": "x", "type": "t",
        "region": "r", "is_spot": False, "machine_id": None, "address": None, "created_at": 0.0, "ready_at": None,
        "terminated_at": None, "expires_at": 0.0, "price_eur_h": None, "reason": "", "failures": 0, "error": "",
        "standing": "left",
    }  # fmt: skip
    key: dict[str, Any] = {
        "id": "k1", "name": "ci", "tenant": "fleet", "principal": "ci", "roles": [], "scopes": None, "groups": [],
        "networks": [], "signs": False, "created_at": 0.0, "created_by": "", "expires_at": NOW + DAY_S,
        "due_at": None, "succeeds": None, "used_at": None, "used_from": None,
    }  # fmt: skip
    found = _fleet([_node()], more={"/v1/scale/claims": {"items": [claim]}, "/v1/keys": {"items": [key]}})
    assert found == WELL | {"machines": WARN, "api-keys": WARN}
    hidden = _fleet([_node()], more={"/v1/scale": None, "/v1/keys": None})
    assert hidden == {name: health for name, health in WELL.items() if name not in {"machines", "api-keys"}}


def test_open_metrics_on_loopback_are_no_fault() -> None:
    """Only this machine reads them."""
    assert metrics_door("http://127.0.0.1:1", lambda _: httpx.Response(200)).health is OK


@pytest.mark.parametrize(
    ("states", "health"), [([], FAIL), (["lost"], FAIL), (["active", "lost"], WARN), (["active"], OK)]
)
def test_nodes_that_are_away_are_found(states: list[str], health: Health) -> None:
    """All of them is a fault, one is a warning."""
    assert _nodes([NodeView.model_validate(_node(state=state)) for state in states]).health is health


@pytest.mark.parametrize(("ahead_s", "health"), [(0.0, OK), (60.0, FAIL), (-60.0, FAIL)])
def test_a_wrong_clock_of_this_machine_is_found(ahead_s: float, health: Health) -> None:
    """Deadlines travel as wall-clock time."""
    assert _clock(email.utils.formatdate(NOW, usegmt=True), NOW + ahead_s).health is health


def test_redis_over_a_network_without_tls_is_found() -> None:
    """Its password is readable on the way; on loopback there is no way."""
    assert _all(_access("redis://broker.invalid:6379/0", "off"))["redis-tls"] is WARN
    assert "redis-tls" not in _all(_access("rediss://broker.invalid:6379/0", "off"))


def test_others_packages_under_our_names_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution that brought them is named, to be uninstalled."""
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"tasks": ["mcpfleet", "tasks"]})
    assert _all(_packages()) == {"packages": FAIL}


def test_an_old_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an import says it in its own words."""
    monkeypatch.setattr("sys.version_info", (3, 10, 1))
    assert _all(_python()) == {"python": FAIL}


def test_state_that_others_can_read_is_found(tmp_path: Path) -> None:
    """It holds the fleet's tokens."""
    (tmp_path / "fleet.json").write_text("{}")
    (tmp_path / "fleet.json").chmod(0o644)
    desk: Any = SimpleNamespace(settings=SimpleNamespace(state_dir=tmp_path))
    assert _all(_state(desk)) == {"state": FAIL}


@pytest.mark.parametrize(
    ("environ", "unsynchronised", "found"),
    [
        ({}, True, {}),
        ({"MCPFLEET_NODE_NAME": "a1"}, True, {"time": WARN}),
        ({"MCPFLEET_HOST": "0.0.0.0"}, True, {"time": WARN}),
        ({"MCPFLEET_NODE_NAME": "a1"}, False, {"time": OK}),
        ({"MCPFLEET_NODE_NAME": "a1"}, None, {"time": SKIP}),
    ],
)
def test_a_clock_that_nothing_keeps_is_found_where_others_go_by_it(
    environ: dict[str, str], unsynchronised: bool | None, found: dict[str, Health]
) -> None:
    """One machine alone agrees with itself."""
    assert _all(check_time(environ, lambda: unsynchronised)) == found


def test_what_a_setting_names_by_a_file_is_looked_at(tmp_path: Path) -> None:
    """As Docker and Kubernetes hand secrets out: Redis, the ledger, and both where the file is wrong."""
    redis, ledger = tmp_path / "redis", tmp_path / "ledger"
    redis.write_text("redis://127.0.0.1:1/0\n")
    ledger.write_text(f"sqlite:///{tmp_path}/gone.db\n")
    environ = {"MCPFLEET_REDIS_URL_FILE": str(redis), "MCPFLEET_DATABASE_URL_FILE": str(ledger)}
    desk: Any = SimpleNamespace(settings=SimpleNamespace(state_dir=tmp_path, environ=environ), now=lambda: NOW)
    assert _all(_redis(desk)) == {"redis": FAIL}
    assert "127.0.0.1:1" in next(iter(_redis(desk))).detail
    assert "unable to open" in next(iter(_ledger(desk))).detail
    redis.unlink()
    ledger.unlink()
    for check in (_redis, _ledger):
        (said,) = check(desk)
        assert (said.health, "_FILE names" in said.detail) == (FAIL, True)


def test_files_for_redis_over_tls_are_used(tmp_path: Path) -> None:
    """An authority of one's own is no fault; and files without TLS are."""
    environ = {"MCPFLEET_REDIS_URL": "rediss://r:6379/0", "MCPFLEET_REDIS_CA": "/ca.pem"}
    desk: Any = SimpleNamespace(settings=SimpleNamespace(state_dir=tmp_path, environ=environ), now=lambda: NOW)
    assert "ssl_ca_certs=%2Fca.pem" in (_redis_url(desk) or "")
    environ["MCPFLEET_REDIS_URL"] = "redis://r:6379/0"
    assert _all(_redis(desk)) == {"redis": FAIL}


def test_a_ledger_on_a_network_disk_is_found() -> None:
    """By the innermost file system that its path is on."""
    mounted: list[Any] = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint="/srv", fstype="nfs4"),
        SimpleNamespace(mountpoint="/srv/fast", fstype="xfs"),
    ]
    assert kind_of(Path("/srv/ledger.db"), mounted) == "nfs4"
    assert kind_of(Path("/srv/fast/ledger.db"), mounted) == "xfs"
    assert kind_of(Path("/srvx/ledger.db"), mounted) == "ext4"
    assert place(Path("/srv/ledger.db"), "nfs4").health is FAIL
    assert place(Path("/srv/ledger.db"), "xfs").health is OK


def test_a_disk_without_inodes_is_found(tmp_path: Path) -> None:
    """With room, and no file can be made."""
    assert disk("node", tmp_path, FREE_WARN, 0.04).health is WARN
    assert disk("node", tmp_path, FREE_WARN, 0.05).health is OK
    assert disk("node", tmp_path, FREE_FAIL - 1, 0.04).health is FAIL


def test_a_door_whose_certificate_ends_is_found(tmp_path: Path) -> None:
    """As it is shown, by a proxy too. One that is good for a day is renewed by itself until its last hours."""

    def shown(ends_in_s: float, good_for_s: float = 400 * DAY_S) -> Health:
        return judged(
            x509.load_pem_x509_certificate(
                Path(_certificate(tmp_path / "c.pem", ends_in_s=ends_in_s, good_for_s=good_for_s)).read_bytes()
            ),
            NOW,
        ).health

    assert [shown(90 * DAY_S), shown(5 * DAY_S), shown(-1.0)] == [OK, WARN, FAIL]
    assert [shown(0.5 * DAY_S, DAY_S), shown(0.2 * DAY_S, DAY_S)] == [OK, WARN]
    assert list(check_door_certificate("http://fleet", NOW)) == []
    assert _all(check_door_certificate("https://127.0.0.1:1", NOW)) == {"door-certificate": SKIP}


def test_every_check_is_explained_by_its_id() -> None:
    """docs/doctor.md has a heading for each id that the code can find, and no other."""
    code = "".join(path.read_text() for path in (ROOT / "orchestrator/cli").glob("checkup*.py"))
    names = set(re.findall(r'check=f?"([a-z][a-z ]*?)(?: ?\{[^"]*)?"', code)) | {"server", "certificate", "key"}
    ids = {Finding(check=f"{name} x" if name in {"disk", "tool"} else name, health=OK, detail="").id for name in names}
    page = (ROOT / "docs/doctor.md").read_text()
    assert set(re.findall(r"^### `([a-z-]+)`", page, re.MULTILINE)) == ids
