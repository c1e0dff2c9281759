"""Provisioning: how a run of Ansible is started, told of, ended; with a real `ansible-playbook` where there is one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.autoscaler.provision.playbook import LOG_BYTES, Playbook
from orchestrator.autoscaler.provision.provisioner import (
    AnsibleOptions,
    AnsibleProvisioner,
    CannotProvision,
    ProvisioningFailed,
)
from orchestrator.autoscaler.values import ClaimState, NodeClaim, Rung

ROOT = Path(__file__).parents[2]
CLAIM = NodeClaim(
    "abc", "builders", "builders-abc", Rung("cloud"), ClaimState.PROVISIONING, 0.0, 0.0, address="192.0.2.1"
)
ENVIRON = {
    "MCPFLEET_NODE_NAME": "builders-abc",
    "MCPFLEET_NODE_POOL": "builders",
    "MCPFLEET_NODE_ORCHESTRATOR_URL": "http://192.0.2.9:8700",
    "MCPFLEET_NODE_ENROL_TOKEN": "not-a-secret",
    "MCPFLEET_NODE_LOCATION": "fsn1",
}
WITHIN_S, ASK_EVERY_S = 60.0, 0.02


def _folder(where: Path, playbook: str = "[]") -> Path:
    """A folder `ansible` whose playbook is this."""
    folder = where / "ansible"
    folder.mkdir()
    (folder / "provision.yml").write_text(playbook)
    shutil.copy(ROOT / "ansible/ansible.cfg", folder)
    return folder


def _program(where: Path, script: str) -> str:
    """Something in the place of ansible-playbook."""
    program = where / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def _provisioner(where: Path, program: str, **options: object) -> AnsibleProvisioner:
    folder = where / "ansible"
    given = AnsibleOptions(folder if folder.exists() else _folder(where), where / "state", program=program)
    fields = {name: getattr(given, name) for name in given.__slots__} | options
    environ = {**os.environ, "MCPFLEET_TOKEN": "not-a-secret-of-the-fleet"}
    return AnsibleProvisioner(AnsibleOptions(**fields), environ)


def _spy(where: Path) -> str:
    """Notes what a run is given, and succeeds."""
    note = where / "noted"
    return _program(
        where,
        f"""mkdir {note}; echo "$@" >{note}/words; env >{note}/environ
for word; do
    case $word in @*) cp -p "${{word#@}}" {note}/vars;; *inventory.json) cp -p "$word" {note}/inventory;; esac
done""",
    )


async def test_secrets_come_in_a_file_that_goes(tmp_path: Path) -> None:
    """No argument and no variable of the child holds a secret; the file that does is ours alone, and is removed."""
    await _provisioner(tmp_path, _spy(tmp_path)).provision(CLAIM, "not-a-secret", ENVIRON)
    noted = tmp_path / "noted"
    words, environ = (noted / "words").read_text(), (noted / "environ").read_text()
    assert "not-a-secret" not in words + environ
    assert stat.S_IMODE((noted / "vars").stat().st_mode) == 0o600
    (vars_file,) = [word.removeprefix("@") for word in words.split() if word.startswith("@")]
    assert not Path(vars_file).parent.exists()


async def test_the_role_gets_what_the_claim_says(tmp_path: Path) -> None:
    """The node's settings become the role's variables, what it has none for goes into its environment file."""
    shared = {"node_env": {"SHARED": "x"}, "node_packages": ["git"]}
    await _provisioner(tmp_path, _spy(tmp_path), variables=shared).provision(CLAIM, "not-a-secret", ENVIRON)
    assert json.loads((tmp_path / "noted/vars").read_text()) == {
        "node_enrol_token": "not-a-secret",
        "node_env": {"MCPFLEET_NODE_LOCATION": "fsn1", "SHARED": "x"},
        "node_machine_ttl_s": 7200,
        "node_name": "builders-abc",
        "node_orchestrator_url": "http://192.0.2.9:8700",
        "node_packages": ["git"],
        "node_pool": "builders",
    }


async def test_each_machine_has_its_own_file_of_keys(tmp_path: Path) -> None:
    """Clouds give a new machine an old address: its new key must not look like an attack."""
    provisioner = _provisioner(tmp_path, _spy(tmp_path))
    await provisioner.provision(CLAIM, "not-a-secret", ENVIRON)
    host = json.loads((tmp_path / "noted/inventory").read_text())["all"]["hosts"]["builders-abc"]
    assert host["ansible_host"] == "192.0.2.1"
    assert "StrictHostKeyChecking=accept-new" in host["ansible_ssh_common_args"]
    assert str(tmp_path / "state/known_hosts/abc") in host["ansible_ssh_common_args"]


@pytest.mark.parametrize("line", ["fatal: [b]: FAILED! =>", "failed: [b] (item=a:b) =>", "fatal: [b]: UNREACHABLE! =>"])
async def test_the_failing_task_is_named(line: str, tmp_path: Path) -> None:
    """An operator reads which task failed, why, and where the rest is."""
    said = f'TASK [node : Make its user] ***\\n{line} {{"changed": false, "msg": "no room"}}'
    with pytest.raises(ProvisioningFailed) as caught:
        await _provisioner(tmp_path, _program(tmp_path, f"printf '{said}\\n'; exit 2")).provision(CLAIM, "", ENVIRON)
    assert (caught.value.task, caught.value.detail) == ("node : Make its user", "no room")
    assert caught.value.log.read_text().startswith("TASK [node : Make its user]")
    assert str(caught.value.log) in caught.value.message


async def test_a_machine_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    """A run past its limit is ended, and said to be."""
    program = _program(tmp_path, "echo 'TASK [node : Wait] ***'; exec sleep 600")
    with pytest.raises(ProvisioningFailed, match=r"no end after 3 s") as caught:
        await _provisioner(tmp_path, program, limit_s=3.0).provision(CLAIM, "", ENVIRON)
    assert caught.value.task == "node : Wait"


async def test_cancelled_it_leaves_no_process(tmp_path: Path) -> None:
    """Not even a worker that leads a session of its own, as Ansible's do, or that is deaf to SIGTERM."""
    deaf = f"trap '' TERM; setsid sh -c \"trap '' TERM; echo \\$\\$ >{tmp_path}/worker; sleep 600\" & wait; sleep 600"
    task = asyncio.create_task(
        _provisioner(tmp_path, _program(tmp_path, deaf)).provision(CLAIM, "not-a-secret", ENVIRON)
    )
    worker = tmp_path / "worker"
    await _until(lambda: worker.exists() and worker.read_text().strip() != "")
    pid = int(worker.read_text())
    assert psutil.pid_exists(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


ONE_RUN = """
import asyncio, sys
from pathlib import Path
from orchestrator.autoscaler.provision.playbook import Playbook
here = Path(sys.argv[1])
asyncio.run(Playbook((sys.argv[2],), {"PATH": sys.argv[3]}, here / "log", 600.0, here / "scratch").run())
"""


async def test_killed_it_leaves_no_process_and_no_secret(tmp_path: Path) -> None:
    """SIGKILL gives the orchestrator no time to end its playbook, or to remove the file with the one-time token."""
    script = f"trap '' TERM; (setsid sh -c 'echo $$ >{tmp_path}/worker; exec sleep 600' &); sleep 600"
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/vars.json").write_text("not-a-secret")
    words = (sys.executable, "-P", "-c", ONE_RUN, str(tmp_path), _program(tmp_path, script), os.environ["PATH"])
    starter = await asyncio.create_subprocess_exec(*words)
    worker = tmp_path / "worker"
    await _until(lambda: worker.exists() and worker.read_text().strip() != "")
    pids = [int(worker.read_text()), *(child.pid for child in psutil.Process(starter.pid).children(recursive=True))]
    starter.kill()
    await starter.wait()
    await _until(lambda: not any(map(_lives, pids)))
    assert len(pids) > 2
    assert not (tmp_path / "scratch").exists()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_log_has_an_end(tmp_path: Path) -> None:
    """A playbook that prints for ever fills no disk, and its last words are kept."""
    log = tmp_path / "log"
    line = "a line of fifty characters, more or less, and more"
    script = f"i=0; while [ $i -lt 40000 ]; do echo '{line}'; i=$((i+1)); done"
    words = (_program(tmp_path, f"{script}; echo the end"),)
    run = await Playbook(words, _path(), log, 60.0, tmp_path / "scratch").run()
    assert run.is_done
    assert log.read_text().endswith("the end\n")
    assert sum(part.stat().st_size for part in tmp_path.glob("log*")) <= 2 * LOG_BYTES


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(int(WITHIN_S / ASK_EVERY_S)):
        if condition():
            return
        await asyncio.sleep(ASK_EVERY_S)
    pytest.fail("it did not come to that")


def _path() -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"]}


async def test_without_ansible_it_says_what_to_do(tmp_path: Path) -> None:
    """An orchestrator's host without Ansible, or without the playbooks, is told so in words."""
    with pytest.raises(CannotProvision, match="make ansible-tools"):
        await _provisioner(tmp_path, "no-such-program").provision(CLAIM, "", ENVIRON)
    (tmp_path / "ansible/provision.yml").unlink()
    with pytest.raises(CannotProvision, match="folder `ansible`"):
        await _provisioner(tmp_path, "sh").provision(CLAIM, "", ENVIRON)


# ---------------------------------------------------------------- with the real one

TOUCHES = """
- name: Make a node of a machine
  hosts: all
  gather_facts: false
  tasks:
    - name: Write what was given
      ansible.builtin.copy:
        content: "{{ node_name }} {{ node_enrol_token }}"
        dest: "{{ node_env.DEST }}"
        mode: "0600"
    - name: Fail where that is wanted
      ansible.builtin.fail:
        msg: it was wanted
      when: node_env.FAILS == "yes"
"""


def _real(tmp_path: Path, playbook: str, connection: str = "local") -> AnsibleProvisioner:
    _folder(tmp_path, playbook)
    own = ROOT / ".cache/ansible/bin/ansible-playbook"
    program = str(own) if own.exists() else "ansible-playbook"
    python = {"ansible_python_interpreter": sys.executable}
    return _provisioner(tmp_path, program, connection=connection, limit_s=100.0, variables=python)


@pytest.mark.live("ansible")
async def test_a_real_playbook_makes_its_machine(tmp_path: Path) -> None:
    """Inventory, variables and configuration are such that Ansible itself takes them."""
    environ = {**ENVIRON, "DEST": str(tmp_path / "made"), "FAILS": "no"}
    await _real(tmp_path, TOUCHES).provision(CLAIM, "not-a-secret", environ)
    assert (tmp_path / "made").read_text() == "builders-abc not-a-secret"


@pytest.mark.live("ansible")
async def test_a_real_failure_is_told(tmp_path: Path) -> None:
    """What Ansible prints of a failed task is understood."""
    environ = {**ENVIRON, "DEST": str(tmp_path / "made"), "FAILS": "yes"}
    with pytest.raises(ProvisioningFailed) as caught:
        await _real(tmp_path, TOUCHES).provision(CLAIM, "not-a-secret", environ)
    assert (caught.value.task, caught.value.detail) == ("Fail where that is wanted", "it was wanted")


@pytest.mark.live("ansible")
async def test_a_machine_that_is_not_reached_is_told(tmp_path: Path) -> None:
    """Nobody listens at the address."""
    claim = replace(CLAIM, address="localhost.invalid")
    with pytest.raises(ProvisioningFailed, match="Write what was given") as caught:
        await _real(tmp_path, TOUCHES, "ssh").provision(claim, "", {**ENVIRON, "DEST": "/nowhere", "FAILS": "no"})
    assert "localhost.invalid" in caught.value.detail
