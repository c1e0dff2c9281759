"""The pools file: what it means, and what is said of each way to get it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.scale_policy import FleetLimits, ScaleStrategy
from orchestrator.autoscaler.values import Rung
from orchestrator.pools import Policies, read_pools
from tasks.errors import SettingsError
from tasks.pool import PoolPolicy, Strategy

WHOLE = """
[scale]
cluster = "prod"
budget_eur_h = 2
is_dry = true

[providers.hetzner]
token_env = "CLOUD_TOKEN"

[providers.spare]
kind = "ec2"
region = "eu-west-1"

[pools.builders]
strategy = "affinity"
prefetch = 1

[pools.builders.scale]
strategy = "threshold"
min_machines = 0
max_machines = 4
target_wait_s = 5
may_use_spot = true
regions = ["eu-*", "fsn1"]
ladder = [
  { provider = "hetzner", type = "cx33", region = "fsn1" },
  { provider = "spare", type = "t3.medium", region = "eu-west-1", is_spot = true, price_eur_h = 0.02 },
]
[pools.builders.scale.triggers]
queue_depth = 50

[projects.shop]
regions = ["eu-*", "fsn1"]
"""
LINODE = """
[scale]
cluster = "ours"
[providers.p]
kind = "linode"
[pools.POOL.scale]
ladder = [{ provider = "p", type = "x", region = "y" }]
"""
SPARE = '[providers.q]\nkind = "static"\n'
SCALED = '[providers.p]\nkind = "static"\n[pools.b.scale]\nladder = [{ provider = "p" }]\n'


def _read(folder: Path, text: str) -> Policies:
    path = folder / "pools.toml"
    path.write_text(text)
    return read_pools(path, cloud_dir=folder / "cloud", environ={"CLOUD_TOKEN": "not-a-secret", "OTHER": "no"})


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Every table becomes the value that the rest of the orchestrator works with."""
    read = _read(tmp_path, WHOLE)
    policy = read.scaled["builders"]
    assert read.of("builders") == PoolPolicy("builders", strategy=Strategy.AFFINITY, prefetch=1)
    assert read.limits == FleetLimits(cluster="prod", budget_eur_h=2.0, is_dry=True)
    assert (policy.strategy, policy.min_machines, policy.triggers.queue_depth) == (ScaleStrategy.THRESHOLD, 0, 50)
    assert policy.ladder[1] == Rung("spare", "t3.medium", "eu-west-1", is_spot=True, price_eur_h=0.02)
    assert read.regions == {"shop": ("eu-*", "fsn1")}


def test_a_provider_sees_its_own_folder_and_the_secrets_it_names(tmp_path: Path) -> None:
    """The rest of the environment is none of a plugin's business."""
    providers = _read(tmp_path, WHOLE).providers
    assert (providers["hetzner"].kind, providers["spare"].kind) == ("hetzner", "ec2")
    assert providers["hetzner"].environ == {"CLOUD_TOKEN": "not-a-secret"}
    assert providers["spare"].environ == {}
    assert providers["spare"].options == {"region": "eu-west-1"}
    assert providers["spare"].state_dir == tmp_path / "cloud" / "spare"


def test_names_that_linode_takes_are_taken(tmp_path: Path) -> None:
    """Up to the longest; and longer ones where no ladder has a rung there."""
    read = _read(tmp_path, LINODE.replace("POOL", "a-b").replace("ours", "o" * 33))
    assert list(read.scaled) == ["a-b"]
    spare = LINODE.replace("POOL", "2--b").replace("ours", "o" * 41)
    assert list(_read(tmp_path, spare.replace('provider = "p"', 'provider = "q"') + SPARE).scaled) == ["2--b"]


def test_no_file_and_an_unnamed_pool_have_the_defaults(tmp_path: Path) -> None:
    """`of` and `has` answer for every pool."""
    assert read_pools(None).of("any") == PoolPolicy("any")
    read = _read(tmp_path, SCALED)
    assert (read.has("b"), read.has("c"), read.of("b")) == (True, False, PoolPolicy("b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pool.b]", "pool is not a setting, did you mean 'pools'?"),
        ("pools = 3", "pools is 3: write a table"),
        ("[pools.B]", "pools.B is named 'B'"),
        ("[pools.b]\nstratgy = 'late'", "pools.b.stratgy is not a setting, did you mean 'strategy'?"),
        ("[pools.b]\nstrategy = 'latest'", "pools.b.strategy is 'latest': write "),
        ("[pools.b]\nprefetch = -1", "pools.b.prefetch is -1: write 0 or more"),
        ("[pools.b]\nprefetch = '2'", "pools.b.prefetch is '2': write a whole number"),
        ("[pools.b]\nname = 'c'", "pools.b.name is not a setting"),
        ("[pools.b]\naffinity_ttl_s = inf", "pools.b.affinity_ttl_s is inf: write a number"),
        ("[pools.b]\naffinity_ttl_s = 2020-01-01", "pools.b.affinity_ttl_s is '2020-01-01'"),
        ("[scale]\nbuget_eur_h = 1", "scale.buget_eur_h is not a setting, did you mean 'budget_eur_h'?"),
        ("[scale]\nbudget_eur_h = 0", "scale.budget_eur_h is 0: write more than 0"),
        ("[scale]\ncluster = 'My Fleet'", "scale.cluster is named 'My Fleet'"),
        ("[scale]\nmachine_ttl_s = 5", "scale.machine_ttl_s is 5: write 600 or more"),
        ("[providers.p]\nkind = 3", "providers.p.kind is 3"),
        ("[providers.'../p']", "providers.../p is named '../p'"),
        ("[providers.p]\nlimit = nan", "providers.p.limit is nan: write a number"),
        ("[pools.b.scale]\nladder = []", "pools.b.scale.ladder is empty: write at least one rung"),
        ("[pools.b.scale]", "pools.b.scale.ladder is missing: write ["),
        ("[pools.b.scale]\nladder = { provider = 'p' }", "pools.b.scale.ladder is a table: write a list of them, [{"),
        ("[pools.b.scale]\nladder = 'p'", "pools.b.scale.ladder is 'p': write a list"),
        ("[pools.b.scale]\nladder = ['p']", "pools.b.scale.ladder[0] is 'p': write a table"),
        ("[pools.b.scale]\nladder = [{ typ = 'x' }]", "ladder[0].typ is not a setting, did you mean 'type'?"),
        ("[pools.b.scale]\nladder = [{ type = 'x' }]", "pools.b.scale.ladder[0].provider is missing"),
        ("[pools.b.scale]\nladder = [{ provider = 'p' }]", "'p', which has no table: write [providers.p]"),
        (SCALED.replace('"p"', '"pp"').replace("[providers.p]", "[providers.ppp]"), "did you mean 'ppp'?"),
        (SCALED + "max_machine = 3", "pools.b.scale.max_machine is not a setting, did you mean 'max_machines'"),
        (SCALED + "pool = 'c'", "pools.b.scale.pool is not a setting"),
        (SCALED + "max_machines = 'ten'", "pools.b.scale.max_machines is 'ten': write a whole number"),
        (SCALED + "min_machines = 3\nmax_machines = 2", "min_machines is 3: max_machines is only 2"),
        (SCALED + "max_machines = 0", "pools.b.scale.max_machines is 0: write 1 or more"),
        (SCALED + "down_step = 1.5", "pools.b.scale.down_step is 1.5: write a share"),
        (SCALED + "headroom = 0.5", "pools.b.scale.headroom is 0.5: write 1 or more"),
        (SCALED + "slots_tools = 0\nslots_agents = 0", "a machine runs at least one call"),
        (SCALED + "boot_limit_s = 60", "pools.b.scale.boot_limit_s is 60: write more than boot_s, 90"),
        (SCALED + "provision = 'ansibel'", "pools.b.scale.provision is 'ansibel', did you mean 'ansible'?"),
        (SCALED + "regions = ['']", "pools.b.scale.regions[0] is ''"),
        (SCALED + "regions = ['eu-*']", "pools.b.scale.ladder has no rung in eu-*"),
        (SCALED + "[pools.b.scale.triggers]\ncpu = 70", "pools.b.scale.triggers.cpu is 70: write a share"),
        (SCALED + "[pools.b.scale.triggers]\ncpus = 0.7", "triggers.cpus is not a setting, did you mean 'cpu'"),
        (SCALED + "[pools.b.scale.triggers]\nutilisation_low = 0.8", "write less than utilisation_high, 0.7"),
        (SCALED.replace('"p" }', '"p", is_spot = true }'), "has spot machines only: write may_use_spot = true"),
        (SCALED.replace(".b.", f".{'b' * 31}."), "belongs to a pool of 31 characters"),
        ("[providers.hetzner]", "scale.cluster is missing: "),
        (
            "[scale]\nbudget_eur_h = 1\n[providers.c]\nkind = 'ec2'",
            "[providers.c] is an account that another fleet may",
        ),
        (SCALED + "min_machines = 3\n[scale]\nmax_machines = 2", "scale.max_machines is 2: the pools'"),
        (LINODE.replace("POOL", "2fast"), "labels begin with a letter and have no two dashes in a row"),
        (LINODE.replace("POOL", "a--b"), "give the pool 'a--b' such a name, or another provider"),
        (LINODE.replace("POOL", "b").replace("ours", "o" * 34), "scale.cluster has 34 characters"),
        ("[projects.Shop]\nregions = ['eu']", "projects.Shop is no project"),
        ("[projects.tenant]\nregions = ['eu']", "projects.tenant is no project: secrets of that owner"),
        ("[projects.shop]", "projects.shop.regions is missing"),
        ("[projects.shop]\nregion = ['eu']", "projects.shop.region is not a setting, did you mean 'regions'?"),
        ("[projects.shop]\nregions = []", "projects.shop.regions is empty"),
        ("[projects.shop]\nregions = 'eu'", "projects.shop.regions is 'eu': write a list"),
        ("[projects.shop]\nregions = ['eu', ' ']", "projects.shop.regions[1] is ' '"),
        ("[pools", "pools.toml cannot be read as TOML: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    """File, place in it, what stands there, and what to write."""
    with pytest.raises(SettingsError) as refused:
        _read(tmp_path, text)
    assert said in refused.value.message
    assert str(tmp_path / "pools.toml") in refused.value.message


def test_a_wrong_option_of_a_provider_names_the_file(tmp_path: Path) -> None:
    """Only its plugin knows that it is wrong; the operator mends it in the same file as the rest."""
    config = _read(tmp_path, "[providers.local-process]\nmax_machines = 0").providers["local-process"]
    with pytest.raises(SettingsError) as raised:
        open_provider(config)
    assert (
        raised.value.message
        == f"{tmp_path / 'pools.toml'}: [providers.local-process] max_machines is 0: write 1 or more"
    )


def test_a_pools_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    """With the variable that names it, and without a number that only the kernel knows."""
    with pytest.raises(SettingsError) as raised:
        read_pools(tmp_path / "none.toml")
    said = raised.value.message
    assert said == f"there is no pools file {tmp_path / 'none.toml'}; write it, or unset MCPFLEET_POOLS_FILE"
    with pytest.raises(SettingsError, match=r"\(MCPFLEET_POOLS_FILE\) cannot be read: Is a directory"):
        read_pools(tmp_path)
