"""The scaling part of the pools file: `[scale]`, `[providers.<name>]` and `[pools.<name>.scale]`.

Owns which values make sense together. Refuses to open a provider: whether its options are right, only
its plugin knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.autoscaler.act.ladder import allowed
from orchestrator.autoscaler.cloud.provider import ProviderConfig
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy, Triggers
from orchestrator.autoscaler.values import Rung
from orchestrator.pools_table import (
    NOT_NEGATIVE,
    ONE_OR_MORE,
    POSITIVE,
    SHARE,
    Place,
    Value,
    built,
    check_finite,
    check_keys,
    check_patterns,
    check_rules,
    names_of,
    shown,
    table_of,
)
from tasks.errors import near
from tasks.node import NAME_PATTERN

POOL_CHARS_MAX = 30
"""Of a pool that is scaled: its nodes are named `<pool>-<id of 10>`, and node names have 41 at most."""
PROVISIONS = ("none", "ansible")
LINODE, LINODE_CLUSTER_MAX = "linode", 33
"""Its tags have 50 characters at most, with `mcpfleet-cluster:`; its labels are the names of machines."""
RUNGS = '[{ provider = "hetzner", type = "cx33" }]'
TTL_MIN_S = 600.0
"""A machine that ends itself sooner would not outlive an orchestrator's upgrade."""
LIMIT_RULES = {"budget_eur_h": POSITIVE, "max_machines": ONE_OR_MORE}
TRIGGER_RULES = {
    "cpu": SHARE,
    "cpu_for_s": NOT_NEGATIVE,
    "memory": SHARE,
    "queue_depth": NOT_NEGATIVE,
    "wait_p95_s": POSITIVE,
    "error_rate": SHARE,
    "utilisation_high": SHARE,
    "utilisation_low": NOT_NEGATIVE,
    "grow_by": POSITIVE,
    "cooldown_s": NOT_NEGATIVE,
}
POLICY_RULES = {
    "min_machines": NOT_NEGATIVE,
    "max_machines": ONE_OR_MORE,
    "target_wait_s": POSITIVE,
    "target_wait_agents_s": POSITIVE,
    "catch_up_s": POSITIVE,
    "headroom": ONE_OR_MORE,
    "down_margin": ONE_OR_MORE,
    "settle_s": NOT_NEGATIVE,
    "down_step": SHARE,
    "idle_to_zero_s": NOT_NEGATIVE,
    "budget_eur_h": POSITIVE,
    "slots_tools": NOT_NEGATIVE,
    "slots_agents": NOT_NEGATIVE,
    "boot_s": POSITIVE,
    "boot_limit_s": POSITIVE,
}


def read_limits(place: Place, value: Value) -> FleetLimits:
    """`[scale]`."""
    table = table_of(place, value)
    check_keys(place, table, names_of(FleetLimits))
    limits = built(place, FleetLimits, table)
    check_rules(place, limits, LIMIT_RULES)
    check_name(place.at("cluster"), limits.cluster)
    if limits.machine_ttl_s < TTL_MIN_S:
        place.at("machine_ttl_s").wrong(f"is {limits.machine_ttl_s:g}: write {TTL_MIN_S:g} or more")
    return limits


def read_provider(
    place: Place, name: str, value: Value, *, cloud_dir: Path, environ: Mapping[str, str]
) -> ProviderConfig:
    """`[providers.<name>]`: `kind`, and options that its plugin understands.

    Of the environment it gets only the variables that are named: by an option whose name ends in `_env`, or in
    the list `inherit`.
    """
    check_name(place, name)
    table = table_of(place, value)
    check_finite(place, table)
    kind = table.get("kind", name)
    if not isinstance(kind, str) or not kind:
        place.at("kind").wrong(f"is {shown(kind)}: write the name of a provider's plugin")
    options = {key: option for key, option in table.items() if key != "kind"}
    named = {str(option) for key, option in options.items() if key.endswith("_env")}
    inherited = options.get("inherit")
    named |= {str(variable) for variable in inherited} if isinstance(inherited, list) else set()
    return ProviderConfig(
        name=name,
        kind=kind,
        options=options,
        state_dir=cloud_dir / name,
        file=place.file,
        environ={variable: environ[variable] for variable in sorted(named) if variable in environ},
    )


def read_scale_policy(place: Place, pool: str, value: Value, providers: Mapping[str, ProviderConfig]) -> ScalePolicy:
    """`[pools.<name>.scale]`."""
    if len(pool) > POOL_CHARS_MAX:
        place.wrong(f"belongs to a pool of {len(pool)} characters: scaled ones have {POOL_CHARS_MAX} at most")
    table = table_of(place, value)
    check_keys(place, table, names_of(ScalePolicy, "pool"))
    _check_tables(place, table)
    policy = built(place, ScalePolicy, table, pool=pool)
    check_rules(place, policy, POLICY_RULES)
    check_rules(place.at("triggers"), policy.triggers, TRIGGER_RULES)
    _check_together(place, policy)
    _check_ladder(place, policy, providers)
    return policy


def check_cluster(place: Place, limits: FleetLimits, scaled: Iterable[ScalePolicy], kinds: Mapping[str, str]) -> None:
    """That the clouds which pools may order from take the tag. `kinds`: of providers, by name."""
    used = {kinds[rung.provider] for policy in scaled for rung in policy.ladder}
    if LINODE in used and len(limits.cluster) > LINODE_CLUSTER_MAX:
        place.wrong(
            f"has {len(limits.cluster)} characters: a ladder names a Linode account, whose tags have room for "
            f"{LINODE_CLUSTER_MAX}; write a shorter one"
        )


def check_name(place: Place, name: str) -> None:
    """A name that may stand in queue names, tags and folders."""
    if not re.fullmatch(NAME_PATTERN, name):
        place.wrong(f"is named {name!r}: write 1 to 41 of a-z, 0-9 and -, beginning with a letter or digit")


def _check_tables(place: Place, table: dict[str, Value]) -> None:
    triggers = table_of(place.at("triggers"), table.get("triggers", {}))
    check_keys(place.at("triggers"), triggers, names_of(Triggers))
    ladder = table.get("ladder")
    if "ladder" not in table:
        place.at("ladder").wrong(f"is missing: write {RUNGS}")
    if isinstance(ladder, dict):
        place.at("ladder").wrong(f"is a table: write a list of them, {RUNGS} or [[{place.path}.ladder]]")
    if not isinstance(ladder, list):
        place.at("ladder").wrong(f"is {shown(ladder)}: write a list, {RUNGS}")
    if not ladder:
        place.at("ladder").wrong(f"is empty: write at least one rung, {RUNGS}")
    for index, rung in enumerate(ladder):
        at = place.at("ladder").at(index)
        check_keys(at, table_of(at, rung), names_of(Rung))


def _check_together(place: Place, policy: ScalePolicy) -> None:
    if policy.min_machines > policy.max_machines:
        place.at("min_machines").wrong(f"is {policy.min_machines}: max_machines is only {policy.max_machines}")
    if policy.slots_tools + policy.slots_agents == 0:
        place.at("slots_tools").wrong("is 0 and so is slots_agents: a machine runs at least one call")
    if policy.boot_limit_s <= policy.boot_s:
        place.at("boot_limit_s").wrong(f"is {policy.boot_limit_s:g}: write more than boot_s, {policy.boot_s:g}")
    if policy.provision not in PROVISIONS:
        hint = near(policy.provision, PROVISIONS) or f": write {' or '.join(PROVISIONS)}"
        place.at("provision").wrong(f"is {policy.provision!r}{hint}")
    triggers = policy.triggers
    if triggers.utilisation_low >= triggers.utilisation_high:
        place.at("triggers").at("utilisation_low").wrong(
            f"is {triggers.utilisation_low:g}: write less than utilisation_high, {triggers.utilisation_high:g}"
        )


def _check_ladder(place: Place, policy: ScalePolicy, providers: Mapping[str, ProviderConfig]) -> None:
    check_patterns(place.at("regions"), policy.regions)
    for index, rung in enumerate(policy.ladder):
        at = place.at("ladder").at(index)
        if rung.provider not in providers:
            hint = near(rung.provider, list(providers)) or f": write [providers.{rung.provider}]"
            at.at("provider").wrong(f"is {rung.provider!r}, which has no table{hint}")
        check_rules(at, rung, {"price_eur_h": NOT_NEGATIVE})
        if providers[rung.provider].kind == LINODE and ("--" in policy.pool or not policy.pool[0].isalpha()):
            at.at("provider").wrong(
                f"is {rung.provider!r}, a Linode account, whose labels begin with a letter and have no two dashes in a "
                f"row: give the pool {policy.pool!r} such a name, or another provider"
            )
    if not policy.may_use_spot and all(rung.is_spot for rung in policy.ladder):
        place.at("ladder").wrong("has spot machines only: write may_use_spot = true, or add a rung that is not spot")
    if not allowed(policy):
        place.at("ladder").wrong(f"has no rung in {', '.join(policy.regions)}: widen regions, or add such a rung")
