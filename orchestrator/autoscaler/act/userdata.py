"""Cloud-init user data of a new machine. Pure: settings in, text out.

A plain machine gets a user with a public key and nothing else: Ansible does the rest. A golden one gets
its node's settings and a one-time token, and starts its unit. Refuses to carry anything that is good for
longer than the machine's first minutes: whoever may talk to the cloud's metadata service reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.autoscaler.values import NodeClaim
from tasks.errors import SettingsError

CONFIG_DIR = "/etc/mcpfleet"
UNIT = "mcpfleet-node.service"
ENROL_TOKEN = "MCPFLEET_NODE_ENROL_TOKEN"  # noqa: S105 - a variable's name
MACHINE_TTL_S = "MCPFLEET_NODE_MACHINE_TTL_S"
LONG_LIVED = frozenset({"MCPFLEET_NODE_JOIN_TOKEN"})
LIMIT_BYTES = 16 * 1024
"""Source: EC2's limit before base64; other clouds take more."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class UserData:
    """User data for claims of one fleet.

    Attributes:
        user: made on plain machines, may become root.
        public_key: its only way in, one line as in `id_ed25519.pub`; "" where the provider brings a key itself.
        machine_ttl_s: of the machine's dead-man; 0 takes it off.
    """

    user: str
    public_key: str
    machine_ttl_s: float

    def __call__(self, claim: NodeClaim, environ: Mapping[str, str]) -> str:
        """What the claim's machine boots with.

        Raises:
            SettingsError: the settings cannot be in user data.
        """
        if claim.rung.is_golden:
            return golden({MACHINE_TTL_S: f"{self.machine_ttl_s:g}", **environ})
        return plain(self.user, self.public_key)


def plain(user: str, public_key: str) -> str:
    """A user that may become root, and whose only way in is this key."""
    if not public_key:
        return _config({})
    account = {
        "name": user,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": True,
        "ssh_authorized_keys": [public_key.strip()],
    }
    return _config({"users": [account]})


def golden(environ: Mapping[str, str]) -> str:
    """The node's settings, readable to root alone, its one-time token in a file of its own, and the start.

    Raises:
        SettingsError: a secret that lasts, a value that no environment file can hold, or too much of all.
    """
    lasting = sorted(LONG_LIVED & environ.keys())
    if lasting:
        raise SettingsError(
            f"{lasting[0]} must not be in user data, which machines show to whoever asks; enrol instead"
        )
    settings = {name: value for name, value in environ.items() if name != ENROL_TOKEN}
    files = [_file("node.env", settings)]
    if environ.get(ENROL_TOKEN):
        files.append(_file("enrol.env", {ENROL_TOKEN: environ[ENROL_TOKEN]}))
    # Not waited for: it is ready when it has joined, and cloud-init is not done before its commands are.
    start = ["systemctl", "enable", "--now", "--no-block", UNIT]
    return _config({"write_files": files, "runcmd": [start]})


def env_file(environ: Mapping[str, str]) -> str:
    """Lines for systemd's `EnvironmentFile=`.

    Raises:
        SettingsError: a name or value that it cannot hold.

    Source: systemd.exec(5), quoting of EnvironmentFile.
    """
    lines = []
    for name, value in sorted(environ.items()):
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{name[:80]!r} cannot be the name of an environment variable; correct it")
        if any(ord(letter) < ord(" ") for letter in value):
            raise SettingsError(f"{name} has a line break or control character, which no environment file can hold")
        quoted = re.sub(r'(["\\$`])', r"\\\1", value)
        lines.append(f'{name}="{quoted}"\n')
    return "".join(lines)


def _file(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    return {
        "path": f"{CONFIG_DIR}/{name}",
        "owner": "root:root",
        "permissions": "0600",
        "content": env_file(environ),
    }


def _config(form: Mapping[str, object]) -> str:
    """JSON is YAML, and needs no quoting of ours."""
    text = "#cloud-config\n" + json.dumps(form, indent=1) + "\n"
    size_bytes = len(text.encode())
    if size_bytes > LIMIT_BYTES:
        raise SettingsError(
            f"the user data of a machine would have {size_bytes} bytes and clouds take {LIMIT_BYTES}; bake into the "
            "image what all nodes of the pool share"
        )
    return text
