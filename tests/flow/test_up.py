"""`mcpfleet up`: a whole fleet from one command, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from orchestrator.local.statefile import read_identity
from orchestrator.testing.local import Local, Said, command, gone, mcpfleet, until, upped

ANSWERS_WITHIN_S = 60.0
pytestmark = pytest.mark.timeout(600)  # a machine that runs other tests at the same time starts processes slowly


@pytest.fixture
def local(fleet: Local) -> Local:
    """The fleet that all flow tests share."""
    return fleet


def _mcpfleet(fleet: Local, *words: str) -> Said:
    return mcpfleet(fleet.environ, *words)


def _no_servers(folder: Path) -> Path:
    path = folder / "none.json"
    path.write_text('{"mcpServers": {}}')
    return path


def _active(fleet: Local) -> set[str]:
    return {
        node["name"] for node in json.loads(_mcpfleet(fleet, "nodes", "--json").stdout) if node["state"] == "active"
    }


def test_every_address_it_names_answers(local: Local) -> None:
    """API, metrics, OpenAPI and Flower; what needs a secret is refused without it."""
    token = {"Authorization": f"Bearer {local.file.token}"}
    with httpx.Client(trust_env=False, timeout=30.0) as http:
        assert http.get(f"{local.file.url}/v1/tools", headers=token).status_code == 200
        assert http.get(f"{local.file.url}/v1/tools").status_code == 401
        assert http.get(f"{local.file.url}/openapi.json", headers=token).status_code == 200
        assert "mcp_worker_health" in http.get(local.file.metrics_url, headers=token).text
        assert http.get(local.file.flower_url).status_code == 200
        flower = urlsplit(local.file.flower_url)
        assert http.get(f"http://{flower.hostname}:{flower.port}/tasks").status_code == 401
        assert http.post(local.file.mcp_url, json={}).status_code == 401


def test_flower_shows_the_call(local: Local) -> None:
    """Operators see it there, without its arguments."""
    words = ("call", "probe.echo", "word=not-for-flower", "--project", "seen-in-flower")
    assert _mcpfleet(local, *words).returncode == 0
    api = local.file.flower_url.replace("/tasks", "/api/tasks")
    with httpx.Client(trust_env=False, timeout=30.0) as http:
        until(lambda: "seen-in-flower" in http.get(api).text, ANSWERS_WITHIN_S, "Flower knows the call")
        assert "not-for-flower" not in http.get(api).text


def test_both_pools_take_calls(local: Local) -> None:
    """Two pools: anything, and what can build."""
    assert _active(local) == {"general-1", "general-2", "builders-1"}
    said = _mcpfleet(local, "call", "probe.echo", "a=1", "--require", "build", "--json")
    assert json.loads(said.stdout)["node"] == "builders-1", said.stderr


def test_second_up_in_the_same_place_is_refused(local: Local) -> None:
    """Two orchestrators on one SQLite file would be a mess; the first one goes on."""
    said = _mcpfleet(local, "up")
    assert said.returncode == 1
    assert "a fleet runs already" in said.stderr
    assert str(local.process.pid) in said.stderr
    assert httpx.get(f"{local.file.url}/health", trust_env=False).status_code == 200


def test_secrets_are_private_and_in_no_command_line(local: Local) -> None:
    """Other users of the machine see neither files nor arguments that hold one."""
    folder_mode = stat.S_IMODE(local.state_dir.stat().st_mode)
    assert folder_mode == 0o700
    for name in ("fleet.json", "identity.json"):
        assert stat.S_IMODE((local.state_dir / name).stat().st_mode) == 0o600
    redis_password = urlsplit(local.file.redis_url).password
    identity = read_identity(local.state_dir)
    assert identity is not None
    secrets = (local.file.token, local.file.join_token, redis_password, identity.flower_password)
    words = " ".join(word for process in local.family() for word in process.cmdline())
    assert not [secret for secret in secrets if not secret or secret in words]
    logs = "".join(path.read_text() for path in (local.state_dir / "logs").iterdir())
    assert not [secret for secret in secrets if secret and secret in logs]


def test_everything_listens_on_loopback_only(local: Local) -> None:
    """A fleet on a laptop is not exposed by accident."""
    for process in local.family():
        listening = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert set(listening) <= {"127.0.0.1", "::1"}, process.cmdline()


def test_killed_node_comes_back(local: Local) -> None:
    """A crash of one node costs the fleet nothing but that node's moment."""
    before = local.node("general-1")
    before.kill()
    assert not gone([before])

    def is_back() -> bool:
        try:
            return local.node("general-1").pid != before.pid and "general-1" in _active(local)
        except (LookupError, psutil.NoSuchProcess):
            return False

    until(is_back, ANSWERS_WITHIN_S, "general-1 is active again")


def test_doctor_finds_nothing_wrong(local: Local) -> None:
    """What `up` makes is what `doctor` wants."""
    said = _mcpfleet(local, "doctor", "--json")
    assert [item for item in json.loads(said.stdout) if item["health"] == "fail"] == []


def test_ctrl_c_leaves_no_process_no_port_and_no_secret(tmp_path: Path) -> None:
    """And the ledger: an Invocation of this run is found by the next one, at the same address.

    The next one's orchestrator dies: there is no fleet without it, so it ends, and says why.
    """
    with upped(tmp_path, "--nodes", "1", "--no-flower", environ=os.environ) as fleet:
        name = json.loads(_mcpfleet(fleet, "call", "probe.echo", "a=1", "--json").stdout)["id"]
        family = fleet.family()
        assert fleet.end(signal.SIGINT) == 0, fleet.output.read_text()
    assert gone(family, 0.0) == []
    assert "nothing left running" in fleet.output.read_text()
    for url in (fleet.file.url, fleet.file.redis_url):
        parts = urlsplit(url)
        with socket.socket() as probe:
            assert probe.connect_ex((parts.hostname, parts.port)) != 0
    assert not {"fleet.json", "lock", "flower"} & {path.name for path in fleet.state_dir.iterdir()}
    bare = ("--nodes", "1", "--no-flower", "--ephemeral", "--servers", str(_no_servers(tmp_path)))
    with upped(tmp_path, *bare, environ=os.environ) as again:
        assert (again.file.url, again.file.token) == (fleet.file.url, fleet.file.token)
        assert json.loads(_mcpfleet(again, "show", name, "--json").stdout)["state"] == "succeeded"
        family = again.family()
        again.child("serve").kill()
        assert again.process.wait(ANSWERS_WITHIN_S) == 1
    assert gone(family, 0.0) == []
    said = again.output.read_text()
    assert "orchestrator died with status -9; its log is" in said
    assert "orchestrator │" in said
    assert not fleet.state_dir.exists(), "--ephemeral forgets everything"


def test_cloud_keys_reach_the_orchestrator_alone(tmp_path: Path) -> None:
    """No node and no other child could tell them, whatever it is made to print."""
    keys = {"HCLOUD_TOKEN": "not-a-secret", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
    words = ("--servers", str(_no_servers(tmp_path)))
    with upped(tmp_path, *words, environ={**os.environ, **keys}) as local:
        have = [process.cmdline()[-1] for process in local.family() if keys.keys() & process.environ().keys()]
        assert len(local.family()) > len(have)
    assert have == ["serve"]


def test_servers_file_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """Nothing is started for nothing."""
    said = subprocess.run(
        command("up", "--servers", str(tmp_path / "none.json")),
        env={"MCPFLEET_STATE_DIR": str(tmp_path / "s"), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWERS_WITHIN_S,
    )
    assert said.returncode == 2
    assert "none.json" in said.stderr
    assert not (tmp_path / "s").exists()
