"""Which variables hold credentials of clouds: the orchestrator orders machines with them, and no other child sees them.

A node runs tools of third parties, and whoever makes one print its environment must not get the cloud account.
Owns the names. Refuses to guard more than the environment: the children of one user can read each other's
memory and files, so a node that is not trusted belongs on a machine or under a user of its own.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

CLOUDS = re.compile(
    r"(AWS|HCLOUD|HETZNER|DIGITALOCEAN|DO_API|AZURE|ARM|GCP|GCLOUD|CLOUDSDK|LINODE|VULTR|SCW|OVH|EXOSCALE|UPCLOUD"
    r"|OCI|ALICLOUD|ALIBABA_CLOUD|IBMCLOUD|CLOUDSTACK|OUTSCALE|OSC|TF_VAR)_.*"
    r"|GOOGLE_(APPLICATION_CREDENTIALS|CREDENTIALS|CLOUD_.*|OAUTH_.*)"
    r"|OS_(PASSWORD|TOKEN|AUTH_.*|USERNAME|USER_.*|PROJECT_.*|TENANT_.*|APPLICATION_CREDENTIAL_.*|CLOUD)"
)
"""Families of variables that vendors' tools and libraries read by themselves."""
_ASKED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")


def credentials(
    names: Iterable[str], *, pools_file: str | Path | None = None, servers_file: Path | None = None
) -> frozenset[str]:
    """Which of these variables a node must not have.

    Args:
        names: of an environment.
        pools_file: every variable that it names by a key ending in `_env` is a secret of the orchestrator's.
        servers_file: a variable of `CLOUDS` that it asks for as `${NAME}` is meant for its MCP server.
    """
    named = _named_in(pools_file) if pools_file else frozenset()
    asked = _asked_by(servers_file) if servers_file else frozenset()
    return frozenset(name for name in names if name in named or (CLOUDS.fullmatch(name) and name not in asked))


def _named_in(pools_file: str | Path) -> frozenset[str]:
    try:
        return frozenset(_references(tomllib.loads(Path(pools_file).read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return frozenset()  # the orchestrator does not start with it, and says why


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key.endswith("_env"):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _asked_by(servers_file: Path) -> frozenset[str]:
    try:
        return frozenset(_ASKED.findall(servers_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return frozenset()  # the node does not start with it, and says why
