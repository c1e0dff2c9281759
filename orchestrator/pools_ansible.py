"""`[ansible]` of the pools file: how machines that are no golden images are made nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.autoscaler.provision.provisioner import AnsibleOptions
from orchestrator.pools_table import POSITIVE, Place, Value, built, check_keys, check_rules, names_of, table_of

FOLDER = Path("ansible")
STATE_FOLDER = "ansible"
"""Below the folder of all clouds: logs of runs, host keys."""


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What Ansible is run with, and the way in that machines are ordered with.

    Attributes:
        options: of the runs.
        public_key: one line, for cloud-init; empty where the provider brings a key itself.
    """

    options: AnsibleOptions = field(default_factory=lambda: AnsibleOptions(FOLDER, Path("cloud") / STATE_FOLDER))
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    """As it is written.

    Attributes:
        folder: `ansible/` of a checkout.
        user: on the machines.
        private_key_file: ssh's; its public half is beside it, with `.pub`.
        program: `ansible-playbook`, by name or path.
        limit_s: for one machine.
        variables: of the roles.
    """

    folder: Path = FOLDER
    user: str = "mcpfleet-admin"
    private_key_file: Path | None = None
    program: str = "ansible-playbook"
    limit_s: float = 900.0
    variables: dict[str, object] = field(default_factory=dict)


def read_provisioning(place: Place, value: Value, *, cloud_dir: Path) -> Provisioning:
    """The table; what it leaves out has its default."""
    table = table_of(place, value)
    check_keys(place, table, names_of(_Table))
    said = built(place, _Table, table)
    check_rules(place, said, {"limit_s": POSITIVE})
    options = AnsibleOptions(
        folder=said.folder,
        state_dir=cloud_dir / STATE_FOLDER,
        user=said.user,
        private_key=said.private_key_file,
        program=said.program,
        limit_s=said.limit_s,
        variables=said.variables,
    )
    return Provisioning(options, _public_key(place, said.private_key_file))


def _public_key(place: Place, private: Path | None) -> str:
    if private is None:
        return ""
    public = private.with_name(f"{private.name}.pub")
    try:
        return public.read_text().strip()
    except OSError as error:
        place.at("private_key_file").wrong(
            f"has no public half at {public} ({error.strerror}): write one with `ssh-keygen -y -f {private}`"
        )
