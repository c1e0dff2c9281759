"""Doctor: is the PostgreSQL behind the ledger one that keeps what it commits, has room for us, and tells our time?

Asks what every user may ask. Changes nothing; refuses to judge how it is tuned.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.cli.durations import took
from orchestrator.cli.findings import Finding, Health, is_loopback

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
VERSION_MIN = 14
"""Older ones have no fixes from their makers, and were never tried."""
USED_WARN, USED_FAIL = 0.80, 0.95
SLOW_S = 0.025
"""A call is accepted, released and settled in a commit each; half of all short ones are to take below 0.1 s."""
SKEW_MAX_S = 5.0
PINGS = 5
HELD_S = 3600.0
SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum", "server_encoding", "max_connections",
            "superuser_reserved_connections")  # fmt: skip
HELD = (
    "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What it says of itself.

    Attributes:
        version_num: as `server_version_num`, 150004 for 15.4.
        settings: of `SETTINGS`; a value that this user may not read is missing.
        is_standby: it replays another one's log.
        is_encrypted: this connection; None: unknown.
        connections: of clients, of all databases.
        ahead_s: its clock less this machine's.
        answer_s: median of a few.
        held_s: the longest open transaction in this database.
    """

    version_num: int
    settings: Mapping[str, str]
    is_standby: bool = False
    is_encrypted: bool | None = None
    connections: int = 0
    ahead_s: float = 0.0
    answer_s: float = 0.0
    held_s: float = 0.0


def check_postgres(url: str, now: Callable[[], float]) -> Iterator[Finding]:
    """Findings about the server at `url`, which answers.

    Args:
        url: PostgreSQL's, as the ledger takes it.
        now: seconds since the epoch, by this machine.
    """
    try:
        facts = facts_of(url, now)
    except (SQLAlchemyError, OSError, ImportError) as error:
        detail = str(getattr(error, "orig", None) or error).splitlines()[0]
        mend = "look as a user who may read pg_settings and pg_stat_activity"
        yield Finding(check="ledger server", health=SKIP, detail=f"it does not say how it is set: {detail}", mend=mend)
        return
    host = make_url(url).host or ""
    yield from judged(facts, is_near=not host or host.startswith("/") or is_loopback(host))


def judged(facts: Facts, *, is_near: bool) -> Iterator[Finding]:
    """Findings.

    Args:
        facts: of the server.
        is_near: reached over loopback or a socket of this machine.
    """
    yield _server(facts)
    yield _durable(facts.settings)
    yield _connections(facts)
    yield _clock(facts.ahead_s)
    yield latency(check="ledger latency", answer_s=facts.answer_s, why="each call waits for several commits")
    yield _vacuum(facts)
    if not is_near and facts.is_encrypted is False:
        mend = "?sslmode=verify-full&sslrootcert=FILE in MCPFLEET_DATABASE_URL, or a network of its own"
        yield Finding(check="ledger tls", health=WARN, detail="it is reached without TLS", mend=mend)


def facts_of(url: str, now: Callable[[], float]) -> Facts:
    """Ask.

    Raises:
        SQLAlchemyError, OSError, ImportError: it does not answer, or not to this user.
    """
    parsed = make_url(url)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed)
    try:
        with engine.connect() as connection:
            return _asked(connection, now)
    finally:
        engine.dispose()


def latency(*, check: str, answer_s: float, why: str) -> Finding:
    """Of a store."""
    detail = f"answers in {answer_s * 1000:.1f} ms"
    if answer_s < SLOW_S:
        return Finding(check=check, health=OK, detail=detail)
    mend = "put it nearer, or give it more CPU; measured from here, so look from the orchestrator's machine first"
    return Finding(check=check, health=WARN, detail=f"{detail}: {why}", mend=mend)


def _asked(connection: Connection, now: Callable[[], float]) -> Facts:
    def one(query: str) -> Any:  # noqa: ANN401 - a value of whatever type
        return connection.scalar(text(query))

    rows = connection.execute(
        text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)"), {"names": [*SETTINGS]}
    )
    settings = {str(name): str(value) for name, value in rows}
    took_s = []
    for _ in range(PINGS):
        began_s = time.perf_counter()
        one("SELECT 1")
        took_s.append(time.perf_counter() - began_s)
    return Facts(
        version_num=int(one("SHOW server_version_num")),
        settings=settings,
        is_standby=bool(one("SELECT pg_is_in_recovery()")),
        is_encrypted=one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"),
        connections=int(one("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")),
        ahead_s=float(one("SELECT extract(epoch FROM clock_timestamp())")) - now(),
        answer_s=statistics.median(took_s),
        held_s=float(one(HELD)),
    )


def _server(facts: Facts) -> Finding:
    major = facts.version_num // 10_000
    encoding = facts.settings.get("server_encoding", "UTF8")
    if facts.is_standby:
        mend = "name the primary in MCPFLEET_DATABASE_URL, or both with ?target_session_attrs=read-write"
        return Finding(check="ledger server", health=FAIL, detail="it is a standby and takes no writes", mend=mend)
    if encoding.upper() not in {"UTF8", "UTF-8"}:
        mend = "make the database anew: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and restore into it"
        return Finding(check="ledger server", health=FAIL, detail=f"its encoding is {encoding}", mend=mend)
    if major < VERSION_MIN:
        detail = f"PostgreSQL {major} has no fixes any more"
        return Finding(check="ledger server", health=WARN, detail=detail, mend=f"upgrade it to {VERSION_MIN} or newer")
    return Finding(check="ledger server", health=OK, detail=f"PostgreSQL {major}")


def _durable(settings: Mapping[str, str]) -> Finding:
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if settings.get(name) == "off"]
    if off:
        mend = f"ALTER SYSTEM SET {off[0]} = on; SELECT pg_reload_conf()"
        detail = f"{', '.join(off)} off: a crash of its machine loses calls that were accepted"
        return Finding(check="ledger durability", health=FAIL, detail=detail, mend=mend)
    return Finding(check="ledger durability", health=OK, detail="what is committed is on its disk")


def _connections(facts: Facts) -> Finding:
    most = int(facts.settings.get("max_connections", 0)) - int(facts.settings.get("superuser_reserved_connections", 0))
    if most <= 0:
        return Finding(check="ledger connections", health=SKIP, detail="it does not say how many it takes")
    share = facts.connections / most
    health = FAIL if share >= USED_FAIL else WARN if share >= USED_WARN else OK
    mend = "" if health is OK else "raise max_connections, or find who holds them: SELECT * FROM pg_stat_activity"
    detail = f"{facts.connections} of {most} in use"
    return Finding(check="ledger connections", health=health, detail=detail, mend=mend)


def _clock(ahead_s: float) -> Finding:
    if abs(ahead_s) <= SKEW_MAX_S:
        return Finding(check="ledger clock", health=OK, detail="agrees with this machine's")
    detail = f"{took(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    mend = "set both by NTP (timedatectl set-ntp true): the leader's lease goes by the database's, and a jump ends it"
    return Finding(check="ledger clock", health=WARN, detail=detail, mend=mend)


def _vacuum(facts: Facts) -> Finding:
    if facts.settings.get("autovacuum") == "off":
        mend = "ALTER SYSTEM SET autovacuum = on: every call changes its rows several times, and dead ones pile up"
        return Finding(check="ledger vacuum", health=WARN, detail="autovacuum is off", mend=mend)
    if facts.held_s > HELD_S:
        mend = "end it: SELECT pid, query FROM pg_stat_activity ORDER BY xact_start; SELECT pg_terminate_backend(PID)"
        detail = f"a transaction has been open for {took(facts.held_s)}: nothing is cleaned up behind it"
        return Finding(check="ledger vacuum", health=WARN, detail=detail, mend=mend)
    return Finding(check="ledger vacuum", health=OK, detail="autovacuum is on, and nothing holds it up")
