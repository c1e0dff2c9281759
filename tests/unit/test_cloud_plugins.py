"""Providers are opened by kind, with options that are checked and secrets that are only referred to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.errors import CloudDown
from orchestrator.autoscaler.cloud.options import redacted, vendor
from orchestrator.autoscaler.cloud.plugins import GROUP, open_provider
from orchestrator.autoscaler.cloud.provider import Order, ProviderConfig
from orchestrator.autoscaler.cloud.threads import VendorThreads
from tasks.errors import SettingsError

TOKEN = "not-a-secret-but-must-not-be-seen"


def config(
    tmp_path: Path, kind: str, options: Mapping[str, object], environ: Mapping[str, str] | None = None
) -> ProviderConfig:
    """A table `[providers.mine]`."""
    return ProviderConfig("mine", kind, options, tmp_path, environ or {})


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("hetzer", {}, r"mine\] is of kind 'hetzer'.*did you mean 'hetzner'\?; there are .*static"),
        ("static", {"host": ["192.0.2.1"]}, r"mine\] host is not an option of 'static', did you mean 'hosts'\?"),
        ("static", {}, r"mine\] hosts is missing: write it"),
        ("static", {"hosts": []}, r"hosts is empty"),
        ("static", {"hosts": ["192.0.2.1", {"address": "192.0.2.1"}]}, r"hosts names 192\.0\.2\.1 more than once"),
        ("hetzner", {}, r"token_env is missing; it, or token_file"),
        ("hetzner", {"token": TOKEN}, r"token is a secret and does not belong into a file; .*token_env"),
        ("hetzner", {"token_env": "NOT_SET"}, r"token_env names the variable NOT_SET, which is empty or not set"),
        ("hetzner", {"token_env": "A", "token_file": "b"}, r"token_env are both given; keep one"),
        ("hetzner", {"token_file": "/nowhere/token"}, r"names /nowhere/token, which cannot be read: No such file"),
        ("digitalocean", {}, r"token_env is missing; it, or token_file"),
        ("linode", {"token": TOKEN}, r"token is a secret and does not belong into a file; .*token_env"),
        ("vultr", {"token_env": "A", "firewal": "x"}, r"is not an option of 'vultr', did you mean 'firewall'\?"),
        ("local-process", {"max_machines": 0}, r"mine\] max_machines is 0: write 1 or more"),
        ("local-process", {"stop_s": -1}, r"mine\] stop_s is -1: write more than 0"),
        ("local-process", {"stop_s": float("nan")}, r"mine\] stop_s is nan: "),
        ("static", {"hosts": [{"address": "a", "price_eur_h": -1}]}, r"price_eur_h is -1: write 0 or more"),
        ("hetzner", {"token_env": "A", "answer_within_s": 0}, r"answer_within_s is 0: write more than 0"),
        ("vultr", {"token_env": "A", "answer_within_s": -3}, r"answer_within_s is -3: write more than 0"),
        ("ec2", {"regions": ["x"], "spot_max_usd_h": 0}, r"spot_max_usd_h is 0: write more than 0"),
        ("linode", {"token_env": "A", "firewall": "x"}, r"firewall is wrong: write a whole number"),
        ("digitalocean", {"token_env": "A", "eur_per_usd": 0}, r"eur_per_usd is 0; write how many euros a dollar"),
        ("hetzner", {"token_env": "A", "networks": [TOKEN]}, r"networks\.0 is wrong: write a whole number"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, kind: str, options: dict[str, object], says: str) -> None:
    """With the table's name and near misses; a value that may be a secret is never repeated."""
    with pytest.raises(SettingsError, match=says) as raised:
        open_provider(config(tmp_path, kind, options, {"A": "x"}))
    assert TOKEN not in f"{raised.value} {raised.value.__cause__!r}"


async def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """As container platforms hand them over."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    cloud = open_provider(config(tmp_path, "hetzner", {"token_file": str(tmp_path / "token")}))
    await cloud.close()


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path) -> None:
    """What to install is in the message."""
    with pytest.raises(SettingsError, match=r"needs the library no_such_vendor: pip install 'mcpfleet\[some\]'"):
        vendor(config(tmp_path, "some", {}), "no_such_vendor", extra="some")


def test_a_plugin_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    """A third party's package may be half installed."""
    broken = EntryPoint("theirs", "no_such_package:open_it", GROUP)
    with pytest.raises(SettingsError, match=r"no_such_package:open_it cannot be loaded \(No module named"):
        open_provider(config(tmp_path, "theirs", {}), [broken])


def test_two_plugins_of_one_kind_are_refused(tmp_path: Path) -> None:
    """Chance must not choose who is given the credentials."""
    points = [EntryPoint("theirs", value, GROUP) for value in ("a:open_it", "b:open_it")]
    with pytest.raises(SettingsError, match=r"several plugins provide \(a:open_it, b:open_it\)"):
        open_provider(config(tmp_path, "theirs", {}), points)


async def test_every_wait_for_a_library_ends() -> None:
    """A library that never comes back is a cloud that is down; what waited behind it is never begun."""
    threads, released, begun = VendorThreads("slow", threads=1, total_s=0.05), threading.Event(), []
    with pytest.raises(CloudDown, match="nothing within"):
        async with threads.bounded():
            await asyncio.gather(threads.run(released.wait), threads.run(lambda: begun.append(1)))
    released.set()
    threads.close()
    assert begun == []


def test_what_a_vendor_says_is_one_short_line() -> None:
    """Without our secrets."""
    from pydantic import SecretStr

    said = redacted(f"bad token\n{TOKEN} " + "x" * 1000, SecretStr(TOKEN), None)
    assert said.startswith("bad token *** xxx")
    assert len(said) == 300


def test_neither_an_order_nor_a_table_shows_its_secrets() -> None:
    """What is printed in a traceback or a log holds no token."""
    order = Order("c", "p-c", "test", "p", user_data="not-a-secret", environ={"TOKEN": "not-a-secret"})
    config = ProviderConfig("mine", "mine", {}, Path("cloud"), environ={"TOKEN": "not-a-secret"})
    assert "not-a-secret" not in f"{order!r} {config!r}"
