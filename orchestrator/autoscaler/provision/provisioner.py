"""Makes a machine a node: one run of `ansible-playbook provision.yml`, as a child process with a time limit.

Owns the child, the files it reads, its log, and how its failure is told. Secrets reach it in a file for our
eyes only, which is gone when it ends; never in an argument, which every user of the host can read.
Refuses to decide what a failure means for the claim.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from orchestrator.autoscaler.act.userdata import ENROL_TOKEN, MACHINE_TTL_S
from orchestrator.autoscaler.provision.playbook import Playbook
from orchestrator.autoscaler.values import NodeClaim
from tasks.errors import Permanent, Retryable

KEPT_FILES = 100
"""Logs, and files of host keys: of so many machines, the youngest."""
PASSED_ON = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "SSH_AUTH_SOCK"})
"""Of our own environment. All else stays here: it holds the fleet's tokens and the clouds'."""
ROLE_NAMES = {
    "MCPFLEET_NODE_NAME": "node_name",
    "MCPFLEET_NODE_POOL": "node_pool",
    "MCPFLEET_NODE_ORCHESTRATOR_URL": "node_orchestrator_url",
}
"""Settings that the role has variables for; the others go into its `node_env`."""
_log = structlog.get_logger()


class ProvisioningFailed(Retryable):
    """The machine is no node. `task` is the playbook's; "" where it did not get to one."""

    code = "provisioning_failed"

    def __init__(self, node: str, task: str, detail: str, log: Path) -> None:
        where = f"at task {task!r}" if task else "before its first task"
        super().__init__(f"the machine of {node} could not be made a node: {where}: {detail}; all of it is in {log}")
        self.node, self.task, self.detail, self.log = node, task, detail, log


class CannotProvision(Permanent):
    """This host lacks what it takes."""

    code = "cannot_provision"

    def __init__(self, lacks: str) -> None:
        super().__init__(f"machines cannot be provisioned from this host: {lacks}")


@dataclass(frozen=True, slots=True)
class AnsibleOptions:
    """How Ansible is run.

    Attributes:
        folder: the repository's `ansible/`.
        state_dir: logs and host keys.
        user: on the machines; may become root without a password.
        private_key: the user's; None leaves it to ssh's own configuration and agent.
        program: a name on the PATH, or a path.
        limit_s: for one machine.
        machine_ttl_s: of the machine's dead-man; 0 takes it off.
        variables: of the roles, for all machines.
        connection: `ssh`, or `local` for this host itself.
    """

    folder: Path
    state_dir: Path
    user: str = "root"
    private_key: Path | None = None
    program: str = "ansible-playbook"
    limit_s: float = 900.0
    machine_ttl_s: float = 7200.0
    variables: Mapping[str, object] = field(default_factory=dict)
    connection: str = "ssh"


class AnsibleProvisioner:
    """Provisions machines of claims; several at a time, one run each.

    Args:
        options: how Ansible is run.
        environ: usually `os.environ`; little of it is passed on.
    """

    def __init__(self, options: AnsibleOptions, environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ

    async def provision(self, claim: NodeClaim, token: str, environ: Mapping[str, str]) -> None:
        """Make the claim's machine a node; done twice is the same as once. Cancelled, it leaves no process behind.

        Args:
            claim: its machine answers at `address`.
            token: one-time, for its node.
            environ: settings of its node, `MCPFLEET_NODE_*`.

        Raises:
            ProvisioningFailed: a task failed, the machine did not answer, or the time was over.
            CannotProvision: no Ansible here, or no playbook.
        """
        program, playbook = self._program(), self._playbook()
        log = self._file("logs", f"{claim.node}.log")
        if claim.address is None:
            raise ProvisioningFailed(claim.node, "", "its address is not known yet", log)
        _log.info("provisioning", node=claim.node, address=claim.address, log=str(log))
        # Short, because control sockets of ssh live in it; readable to nobody else (mkdtemp makes it 0700).
        scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="mcpfleet-"))
        try:
            _write(scratch / "inventory.json", self._inventory(claim))
            _write(scratch / "vars.json", self._variables(token, environ))
            words = (program, str(playbook), "-i", str(scratch / "inventory.json"), "-e", f"@{scratch / 'vars.json'}")
            run = await Playbook(words, self._child_environ(scratch), log, self._options.limit_s, scratch).run()
        finally:
            await asyncio.shield(_close_ssh(scratch))
            shutil.rmtree(scratch, ignore_errors=True)
        if not run.is_done:
            raise ProvisioningFailed(claim.node, run.task, run.detail, log)
        _log.info("provisioned", node=claim.node, took_s=round(run.took_s, 1))

    def _program(self) -> str:
        found = shutil.which(self._options.program, path=self._environ.get("PATH"))
        if found is None:
            raise CannotProvision(
                f"{self._options.program} is not there; `make ansible-tools` installs it into .cache/ansible/bin, "
                "`apt-get install ansible-core` for all, or let the pool's image make its nodes (provision = 'none')"
            )
        return found

    def _playbook(self) -> Path:
        playbook = self._options.folder / "provision.yml"
        if not playbook.is_file():
            raise CannotProvision(f"{playbook} is not there; name the folder `ansible` of a checkout")
        return playbook.resolve()

    def _file(self, kind: str, name: str) -> Path:
        """Its place, among the youngest of its kind."""
        folder = self._options.state_dir / kind
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        by_age = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in by_age[KEPT_FILES:]:
            old.unlink(missing_ok=True)
        return folder / name

    def _inventory(self, claim: NodeClaim) -> dict[str, object]:
        options = self._options
        known_hosts = self._file("known_hosts", claim.id)
        host: dict[str, object] = {
            "ansible_host": claim.address,
            "ansible_connection": options.connection,
            "ansible_user": options.user,
            # A new machine's key is learnt at first sight, and held it to afterwards.
            "ansible_ssh_common_args": f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile='{known_hosts}'",
        }
        if options.private_key is not None:
            host["ansible_ssh_private_key_file"] = str(options.private_key)
        return {"all": {"hosts": {claim.node: host}}}

    def _variables(self, token: str, environ: Mapping[str, str]) -> dict[str, object]:
        own = {name: environ[setting] for setting, name in ROLE_NAMES.items() if setting in environ}
        known = {*ROLE_NAMES, ENROL_TOKEN, MACHINE_TTL_S}
        further = {setting: value for setting, value in environ.items() if setting not in known}
        ttl_s = float(environ.get(MACHINE_TTL_S, self._options.machine_ttl_s))
        given = dict(self._options.variables)
        shared = given.pop("node_env", {})
        assert isinstance(shared, Mapping)
        return {
            **given,
            **own,
            "node_env": {**shared, **further},
            "node_enrol_token": token,
            "node_machine_ttl_s": int(ttl_s),
        }

    def _child_environ(self, scratch: Path) -> dict[str, str]:
        passed = {name: value for name, value in self._environ.items() if name in PASSED_ON}
        return {
            "LANG": "C.UTF-8",
            **passed,
            "ANSIBLE_CONFIG": str((self._options.folder / "ansible.cfg").resolve()),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(scratch / "cp"),
        }


def _write(path: Path, form: Mapping[str, object]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(form, file)


async def _close_ssh(scratch: Path) -> None:
    """Connections that ssh keeps open outlive the run that opened them."""
    for control in (scratch / "cp").glob("*"):
        process = await asyncio.create_subprocess_exec(
            "ssh", "-O", "exit", "-o", f"ControlPath={control}", "mcpfleet",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()
