"""The two databases that every promise of the ledger is kept on.

PostgreSQL's half carries `live("postgres")`: where it is not installed it is skipped, and the report
at the end says so. Tests get copies of one migrated database; `empty_url` is for those about opening.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from psycopg import connect

from orchestrator.ledger.ledger import Ledger
from orchestrator.testing.protocol import Story
from tasks.testing.clock import FakeClock
from tests.contract.ec2_front import moto_server

pytest.register_assert_rewrite("tests.contract.cloud_suite")
LOCK_WAIT_S = 0.05
"""How long SQLite waits for another's lock in these tests."""
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.live("postgres"))


async def _migrate(url: str) -> None:
    await (await Ledger.open(url, clock=FakeClock())).close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite ledger without rows."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL ledger without rows."""
    name = f"template_{secrets.token_hex(8)}"
    with connect(postgres_server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
    asyncio.run(_migrate(postgres_server.removesuffix("postgres") + name))
    return name


@pytest.fixture
def postgres_copy(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A new copy of it; dropped after the test."""
    name = f"t_{secrets.token_hex(8)}"
    with connect(postgres_server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{postgres_template}"'.encode())
        yield postgres_server.replace("postgresql://", "postgresql+psycopg://").removesuffix("postgres") + name
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(params=["sqlite", POSTGRESQL])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger without rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "ledger.db")
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgres_copy")
    return url


@pytest.fixture(params=["sqlite", POSTGRESQL])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


@pytest.fixture
async def ledger(ledger_url: str, clock: FakeClock) -> AsyncIterator[Ledger]:
    """An open ledger on it."""
    opened = await Ledger.open(ledger_url, clock=clock, busy_timeout_s=LOCK_WAIT_S)
    yield opened
    await opened.close()


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    """A leader with an empty ledger."""
    begun = await Story.begin(tmp_path)
    yield begun
    await begun.end()


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """EC2's API as moto has it, for all tests of clouds."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url
