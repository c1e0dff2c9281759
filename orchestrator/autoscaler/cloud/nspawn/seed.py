"""What a machine finds on its disk at its first boot: cloud-init's NoCloud seed, its name, its hosts.

Written into the upper layer of its overlay, before anything mounts it.
"""

from __future__ import annotations

import json
from pathlib import Path

SEED = "var/lib/cloud/seed/nocloud"
CLOUD_CFG = json.dumps({"datasource_list": ["NoCloud"], "network": {"config": "disabled"}}, indent=1)
"""JSON is YAML. The network is made from outside; looking for other clouds takes a minute."""
NOTHING = "#cloud-config\n{}\n"


def sow(upper: Path, *, machine_id: str, name: str, address: str, gateway: str, user_data: str, resolvers: str) -> None:
    """Write it all.

    `resolvers` is its /etc/resolv.conf, empty where it has no uplink. Without a file of its own each name that
    is looked up, and Ansible looks up the machine's own, waits for a server that never answers.
    """
    hosts = f"127.0.0.1 localhost\n{address} {name}\n{gateway} fleet-host\n"
    meta_data = json.dumps({"instance-id": machine_id, "local-hostname": name})
    files = {
        "etc/hostname": f"{name}\n",
        "etc/hosts": hosts,
        "etc/resolv.conf": resolvers,
        "etc/cloud/cloud.cfg.d/99-local-vps.cfg": CLOUD_CFG,
        f"{SEED}/meta-data": meta_data,
        f"{SEED}/user-data": user_data or NOTHING,
    }
    _folder(upper)
    for path, text in files.items():
        target = upper / path
        for parent in reversed(target.relative_to(upper).parents):
            _folder(upper / parent)
        target.touch(mode=0o600 if path.endswith("user-data") else 0o644)
        target.write_text(text)
        target.chmod(0o600 if path.endswith("user-data") else 0o644)


def _folder(path: Path) -> None:
    """As it is in the image: its mode in the upper layer is the one that counts."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
