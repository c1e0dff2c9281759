"""What `mcpfleet doctor` says of the PostgreSQL behind a ledger: of a real one, and of what it can say of itself."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from orchestrator.cli.checkup_ledger import check_ledger
from orchestrator.cli.checkup_postgres import HELD_S, SLOW_S, Facts, facts_of, judged
from orchestrator.cli.findings import Health
from orchestrator.ledger.ledger import Ledger
from tasks.clock import SystemClock

OK, WARN, FAIL = Health.OK, Health.WARN, Health.FAIL
SET = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on",
       "server_encoding": "UTF8", "max_connections": "100", "superuser_reserved_connections": "3"}  # fmt: skip
WELL = Facts(150_004, SET, is_encrypted=True, connections=10, answer_s=0.001)
ALL_WELL = {f"ledger-{name}": OK for name in ("server", "durability", "connections", "clock", "latency", "vacuum")}


def _found(facts: Facts, *, is_near: bool = False) -> dict[str, Health]:
    findings = list(judged(facts, is_near=is_near))
    assert all(one.mend for one in findings if one.health in {WARN, FAIL})
    return {one.id: one.health for one in findings}


@pytest.mark.live("postgres")
async def test_a_real_one_is_asked_everything(postgres_url: str) -> None:
    """This one runs without fsync, for it is thrown away; the rest is as it should be."""
    await (await Ledger.open(postgres_url, clock=SystemClock())).close()
    found = {one.id: one.health for one in check_ledger(postgres_url)}
    found.pop("ledger-latency")  # as the machine has time
    assert found == {
        "ledger": OK,
        "ledger-server": OK,
        "ledger-durability": FAIL,
        "ledger-connections": OK,
        "ledger-clock": OK,
        "ledger-vacuum": OK,
    }


@pytest.mark.live("postgres")
def test_its_clock_is_read_against_this_machines(postgres_url: str) -> None:
    """Half a minute behind somebody who is half a minute ahead."""
    facts = facts_of(postgres_url, lambda: time.time() + 30.0)
    assert -60 < facts.ahead_s < -20
    assert facts.is_encrypted is False
    assert set(SET) == set(facts.settings)


def test_nothing_is_found_where_all_is_well() -> None:
    """Over a network, with TLS."""
    assert _found(WELL) == ALL_WELL


@pytest.mark.parametrize(
    ("wrong", "health", "facts"),
    [
        ("server", WARN, replace(WELL, version_num=130_010)),
        ("server", FAIL, replace(WELL, is_standby=True)),
        ("server", FAIL, replace(WELL, settings=SET | {"server_encoding": "LATIN1"})),
        ("durability", FAIL, replace(WELL, settings=SET | {"fsync": "off"})),
        ("durability", FAIL, replace(WELL, settings=SET | {"synchronous_commit": "off"})),
        ("connections", WARN, replace(WELL, connections=80)),
        ("connections", FAIL, replace(WELL, connections=96)),
        ("clock", WARN, replace(WELL, ahead_s=-6.0)),
        ("latency", WARN, replace(WELL, answer_s=SLOW_S)),
        ("vacuum", WARN, replace(WELL, settings=SET | {"autovacuum": "off"})),
        ("vacuum", WARN, replace(WELL, held_s=HELD_S + 1)),
        ("tls", WARN, replace(WELL, is_encrypted=False)),
    ],
)
def test_each_thing_that_is_wrong_is_found_alone(wrong: str, health: Health, facts: Facts) -> None:
    """And says how to mend it."""
    assert _found(facts) == ALL_WELL | {f"ledger-{wrong}": health}


def test_no_tls_on_this_machine_is_no_fault() -> None:
    """Nobody listens there."""
    assert _found(replace(WELL, is_encrypted=False), is_near=True) == ALL_WELL
