"""The operator's pools file: pools, what the fleet may grow to, and where projects may run.

`[pools.<name>]` holds the fields of `tasks.pool.PoolPolicy`, `[projects.<name>]` the regions that a
project's data may not leave; `pools_scale.py` reads the rest. A key nobody knows stops the start.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.autoscaler.cloud.provider import ProviderConfig
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.pools_ansible import Provisioning, read_provisioning
from orchestrator.pools_scale import check_cluster, check_name, read_limits, read_provider, read_scale_policy
from orchestrator.pools_table import (
    NOT_NEGATIVE,
    ONE_OR_MORE,
    Place,
    Value,
    built,
    check_keys,
    check_patterns,
    check_rules,
    names_of,
    table_of,
)
from tasks.errors import SettingsError
from tasks.invocation import PROJECT_PATTERN
from tasks.pool import PoolPolicy
from tasks.secretref import TENANT_ITSELF

HOST_KINDS = ("static", "local-process", "local-vps")
"""Providers that keep their machines in a folder of this orchestrator's own: no other fleet looks into it."""
TABLES = ("scale", "ansible", "providers", "pools", "projects")
POOL_RULES = {
    "affinity_ttl_s": NOT_NEGATIVE,
    "warm_wait_tools_s": NOT_NEGATIVE,
    "warm_wait_agents_s": NOT_NEGATIVE,
    "prefetch": NOT_NEGATIVE,
    "bound": ONE_OR_MORE,
}


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything the file says; pools that are not named have the defaults.

    Attributes:
        by_name: pools.
        scaled: pools whose size the autoscaler decides, in the file's order.
        limits: of all pools together.
        ansible: how machines are made nodes.
        providers: by the name that rungs use.
        regions: project → patterns of the locations its calls may run in; a project without is free.
    """

    by_name: Mapping[str, PoolPolicy] = field(default_factory=dict)
    scaled: Mapping[str, ScalePolicy] = field(default_factory=dict)
    limits: FleetLimits = field(default_factory=FleetLimits)
    ansible: Provisioning = field(default_factory=Provisioning)
    providers: Mapping[str, ProviderConfig] = field(default_factory=dict)
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, pool: str) -> PoolPolicy:
        """This pool's policy."""
        return self.by_name.get(pool) or PoolPolicy(pool)

    def has(self, pool: str) -> bool:
        """The operator named it, whether or not a node is in it."""
        return pool in self.by_name


def read_pools(
    path: Path | None, *, cloud_dir: Path = Path("cloud"), environ: Mapping[str, str] | None = None
) -> Policies:
    """Read the file; no file is no policies.

    Args:
        path: of the file.
        cloud_dir: each provider gets a folder in it, for what it keeps on this host.
        environ: where secrets are that the file only names.

    Raises:
        SettingsError: the file cannot be read, or something in it is unknown or wrong.
    """
    if path is None:
        return Policies()
    document = _document(path)
    root = Place(path)
    check_keys(root, document, TABLES)
    tables = {name: table_of(root.at(name), document.get(name, {})) for name in TABLES}
    providers = {
        name: read_provider(root.at("providers").at(name), name, value, cloud_dir=cloud_dir, environ=environ or {})
        for name, value in tables["providers"].items()
    }
    pools = {name: table_of(root.at("pools").at(name), value) for name, value in tables["pools"].items()}
    policies = Policies(
        by_name={name: _pool(root.at("pools").at(name), name, table) for name, table in pools.items()},
        scaled={
            name: read_scale_policy(root.at("pools").at(name).at("scale"), name, table["scale"], providers)
            for name, table in pools.items()
            if "scale" in table
        },
        limits=read_limits(root.at("scale"), tables["scale"]),
        ansible=read_provisioning(root.at("ansible"), tables["ansible"], cloud_dir=cloud_dir),
        providers=providers,
        regions={name: _project(root.at("projects").at(name), name, v) for name, v in tables["projects"].items()},
    )
    _check_fleet(root, policies)
    kinds = {name: provider.kind for name, provider in providers.items()}
    check_cluster(root.at("scale").at("cluster"), policies.limits, policies.scaled.values(), kinds)
    if "cluster" not in tables["scale"]:
        _check_alone(root, providers)
    return policies


def _document(path: Path) -> dict[str, Value]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"there is no pools file {path}; write it, or unset MCPFLEET_POOLS_FILE") from error
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"the pools file {path} (MCPFLEET_POOLS_FILE) cannot be read: {why}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the pools file {path} cannot be read as TOML: {error}") from error


def _pool(place: Place, name: str, table: dict[str, Value]) -> PoolPolicy:
    check_name(place, name)
    check_keys(place, table, [*names_of(PoolPolicy, "name"), "scale"])
    own = {key: value for key, value in table.items() if key != "scale"}
    policy = built(place, PoolPolicy, own, name=name)
    check_rules(place, policy, POOL_RULES)
    return policy


@dataclass(frozen=True, slots=True)
class _Project:
    regions: tuple[str, ...]


def _project(place: Place, name: str, value: Value) -> tuple[str, ...]:
    if not PROJECT_PATTERN.fullmatch(name):
        place.wrong("is no project: write 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit")
    if name == TENANT_ITSELF:
        place.wrong("is no project: secrets of that owner are the tenant's own; use another name")
    table = table_of(place, value)
    check_keys(place, table, names_of(_Project))
    regions = built(place, _Project, table).regions
    if not regions:
        place.at("regions").wrong("is empty: write the locations its calls may run in, or leave the project out")
    check_patterns(place.at("regions"), regions)
    return regions


def _check_fleet(root: Place, policies: Policies) -> None:
    limits, scaled = policies.limits, policies.scaled
    kept = sum(policy.min_machines for policy in scaled.values())
    if limits.max_machines is not None and kept > limits.max_machines:
        root.at("scale").at("max_machines").wrong(
            f"is {limits.max_machines}: the pools' min_machines are {kept} together"
        )


def _check_alone(root: Place, providers: Mapping[str, ProviderConfig]) -> None:
    """Whoever has the tag of a fleet ends what it does not know under it: by default two fleets would have one."""
    for name, provider in providers.items():
        if provider.kind not in HOST_KINDS:
            root.at("scale").at("cluster").wrong(
                f"is missing: [providers.{name}] is an account that another fleet may use too, and two of the same "
                "cluster end each other's machines; write a name that no other fleet of the account has"
            )
