"""User data: what a machine boots with, readable by whoever may ask its cloud."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.autoscaler.act.userdata import LIMIT_BYTES, UserData, env_file, golden, plain
from orchestrator.autoscaler.values import ClaimState, NodeClaim, Rung
from tasks.errors import SettingsError

KEY = "ssh-ed25519 AAAA-not-a-key operator"
ENVIRON = {
    "MCPFLEET_NODE_NAME": "builders-abc",
    "MCPFLEET_NODE_ORCHESTRATOR_URL": "http://10.0.0.1:8700",
    "MCPFLEET_NODE_ENROL_TOKEN": "not-a-secret",
}
PRINTABLE = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")))


def _parsed(text: str) -> dict[str, Any]:
    assert text.startswith("#cloud-config\n")
    form: dict[str, Any] = yaml.safe_load(text)
    return form


def _claim(*, is_golden: bool) -> NodeClaim:
    return NodeClaim("abc", "builders", "builders-abc", Rung("cloud", is_golden=is_golden), ClaimState.BOOTING, 0, 0)


def test_a_plain_machine_gets_a_user_and_a_key_and_nothing_else() -> None:
    """No secret is in the user data of a machine that Ansible provisions."""
    form = _parsed(plain("ops", KEY))
    assert set(form) == {"users"}
    (user,) = form["users"]
    assert (user["name"], user["ssh_authorized_keys"], user["lock_passwd"]) == ("ops", [KEY], True)


def test_a_golden_machine_gets_its_settings_and_a_token_apart() -> None:
    """Root alone reads them, and the token's file can go without the settings."""
    form = _parsed(golden(ENVIRON))
    files = {file["path"]: file for file in form["write_files"]}
    assert set(files) == {"/etc/mcpfleet/node.env", "/etc/mcpfleet/enrol.env"}
    assert {(file["permissions"], file["owner"]) for file in files.values()} == {("0600", "root:root")}
    assert "not-a-secret" not in files["/etc/mcpfleet/node.env"]["content"]
    assert files["/etc/mcpfleet/enrol.env"]["content"] == 'MCPFLEET_NODE_ENROL_TOKEN="not-a-secret"\n'
    assert form["runcmd"] == [["systemctl", "enable", "--now", "--no-block", "mcpfleet-node.service"]]


def test_only_golden_rungs_get_settings() -> None:
    """The token of a machine that Ansible provisions goes by Ansible."""
    make = UserData("ops", KEY, machine_ttl_s=7200.0)
    assert "not-a-secret" not in make(_claim(is_golden=False), ENVIRON)
    assert 'MCPFLEET_NODE_MACHINE_TTL_S=\\"7200\\"' in make(_claim(is_golden=True), ENVIRON)


def test_a_pool_may_set_its_own_dead_man() -> None:
    """What the pool says of its machines beats the fleet."""
    text = UserData("ops", KEY, 7200.0)(_claim(is_golden=True), {**ENVIRON, "MCPFLEET_NODE_MACHINE_TTL_S": "60"})
    assert '=\\"60\\"' in text
    assert "7200" not in text


def test_a_secret_that_lasts_is_refused() -> None:
    """The fleet's join token never stands in a cloud's metadata."""
    with pytest.raises(SettingsError, match="MCPFLEET_NODE_JOIN_TOKEN"):
        golden({**ENVIRON, "MCPFLEET_NODE_JOIN_TOKEN": "not-a-secret"})


@pytest.mark.parametrize("environ", [{"A": "two\nlines"}, {"A B": "x"}, {"A": "x\0"}, {"X": "y" * LIMIT_BYTES}])
def test_what_cannot_be_carried_is_refused(environ: dict[str, str]) -> None:
    """Better no order than a machine that boots with half of its settings."""
    with pytest.raises(SettingsError):
        golden(environ)


@given(PRINTABLE)
def test_values_come_out_as_they_went_in(value: str) -> None:
    """Whatever an operator wrote, systemd reads the same."""
    line = env_file({"A": value}).rstrip("\n")
    inside = line.removeprefix('A="').removesuffix('"')
    # The unquoting of systemd.exec(5): a backslash before one of these four stands for it.
    read, at = [], 0
    while at < len(inside):
        is_escape = inside[at] == "\\" and at + 1 < len(inside) and inside[at + 1] in '"\\$`'
        at += is_escape
        assert is_escape or inside[at] not in '"$`'
        read.append(inside[at])
        at += 1
    assert "".join(read) == value


@pytest.mark.skipif(
    shutil.which("cloud-init") is None, reason="cloud-init is not installed (apt-get install cloud-init)"
)
@pytest.mark.parametrize("text", [plain("ops", KEY), golden(ENVIRON)], ids=["plain", "golden"])
def test_cloud_init_takes_it(text: str, tmp_path: Path) -> None:
    """The schema of cloud-init itself."""
    file = tmp_path / "user-data"
    file.write_text(text)
    run = subprocess.run(
        ["cloud-init", "schema", "--config-file", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr
