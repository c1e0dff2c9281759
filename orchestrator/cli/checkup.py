"""`mcpfleet doctor`: looks at this installation and at the fleet, changes nothing.

Every check is a function that returns findings; one that breaks is a failed finding, not an end.
"""

from __future__ import annotations

import email.utils
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.cli.api import Api
from orchestrator.cli.checkup_pools import check_pools
from orchestrator.cli.checkup_redis import ANSWER_S, check_redis
from orchestrator.cli.checkup_servers import check_servers
from orchestrator.cli.desk import Desk
from orchestrator.cli.findings import Finding, Health
from orchestrator.cli.ownership import PACKAGES, look
from orchestrator.cli.settings import is_private
from orchestrator.local.statefile import FLEET_FILE, IDENTITY_FILE, read_fleet_file
from tasks.errors import FleetError, SettingsError
from tasks.node import LEASE_TTL_S, RENEW_EVERY_S, NodeState
from tasks.redis_tls import RedisTls, with_tls
from tasks.settings import read, value_of
from tasks.wire import NodeView

PYTHON_MIN = (3, 11)
SKEW_MAX_S = LEASE_TTL_S - RENEW_EVERY_S
"""Leases count on the nodes' own clocks, but deadlines travel as wall clock."""

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
Check = Callable[[], Iterator[Finding]]


def examine(desk: Desk, servers: Path | None) -> list[Finding]:
    """All checks, in the order in which a fault explains the ones after it."""
    checks: list[tuple[str, Check]] = [
        ("python", _python),
        ("packages", _packages),
        ("settings", lambda: _settings(desk)),
        ("state", lambda: _state(desk)),
        ("machine", lambda: _machine(desk)),
        ("files", lambda: _files(desk)),
        ("redis", lambda: _redis(desk)),
        ("ledger", lambda: _ledger(desk)),
        ("pools", lambda: check_pools(desk.settings.environ, desk.settings.state_dir)),
        ("exposure", lambda: _exposure(desk)),
        ("orchestrator", lambda: _orchestrator(desk)),
        ("fleet", lambda: _fleet(desk)),
        ("door certificate", lambda: _door_certificate(desk)),
    ]
    if servers is not None:
        checks.append(("servers", lambda: check_servers(servers, desk.settings.environ)))
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 - one broken check must not hide the others' findings
            findings.append(Finding(check=name, health=FAIL, detail=f"the check itself broke: {error!r}"))
    return findings


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info[:2] >= PYTHON_MIN
    mend = "" if is_new else f"install Python {'.'.join(map(str, PYTHON_MIN))} or newer"
    yield Finding(check="python", health=OK if is_new else FAIL, detail=f"{found} at {sys.executable}", mend=mend)


def _packages() -> Iterator[Finding]:
    found = look()
    if found.fault:
        yield Finding(check="packages", health=FAIL, detail=found.fault, mend=found.mend)
    elif found.is_installed:
        yield Finding(check="packages", health=OK, detail=f"{', '.join(PACKAGES)} are ours alone")
    else:
        detail = f"used from source at {found.root}, not installed"
        yield Finding(check="packages", health=WARN, detail=detail, mend="pip install -e . to get the commands")


def _settings(desk: Desk) -> Iterator[Finding]:
    from orchestrator.cli.fleet import NOT_OURS
    from orchestrator.settings import OrchestratorSettings

    set_here = sorted(key for key in desk.settings.environ if key.startswith("MCPFLEET_"))
    # A token is required of a server only; a client without one is told so by the orchestrator's check.
    given = {"token": "-", "join_token": "-"}
    environ = {key: value for key, value in desk.settings.environ.items() if not key.endswith("_TOKEN")}
    try:
        read(OrchestratorSettings, "MCPFLEET_", environ, excluding=NOT_OURS, given=given)
    except SettingsError as error:
        yield Finding(check="settings", health=FAIL, detail=error.message, mend="correct or unset it")
        return
    yield Finding(check="settings", health=OK, detail=", ".join(set_here) or "all by default")


def _state(desk: Desk) -> Iterator[Finding]:
    folder = desk.settings.state_dir
    if not folder.exists():
        yield Finding(check="state", health=OK, detail=f"{folder} is not there yet; `mcpfleet up` makes it")
        return
    files = [folder / name for name in (FLEET_FILE, IDENTITY_FILE)]
    open_to_all = [path for path in files if path.exists() and not is_private(path)]
    if open_to_all:
        names = " ".join(map(str, open_to_all))
        yield Finding(check="state", health=FAIL, detail=f"others can read {names}", mend=f"chmod 600 {names}")
    else:
        running = "a local fleet runs" if read_fleet_file(folder) else "no local fleet runs"
        yield Finding(check="state", health=OK, detail=f"{folder}, {running}")


def _redis_url(desk: Desk) -> str | None:
    """As the orchestrator would reach it: by its variable or file, with its files for TLS.

    Raises:
        SettingsError: they cannot be read, or do not fit together.
    """
    environ = desk.settings.environ
    url = value_of(environ, "MCPFLEET_REDIS_URL")
    if url is None:
        local = read_fleet_file(desk.settings.state_dir)
        return local.redis_url if local else None
    named = [environ.get(f"MCPFLEET_REDIS_{name}") for name in ("CA", "CERT", "KEY")]
    return with_tls(url, RedisTls(*(Path(path) if path else None for path in named)))


def _redis(desk: Desk) -> Iterator[Finding]:
    try:
        url = _redis_url(desk)
    except SettingsError as error:
        yield Finding(check="redis", health=FAIL, detail=error.message, mend="correct MCPFLEET_REDIS_*")
        return
    yield from check_redis(url, desk.settings.environ.get("MCPFLEET_REDIS_ACL", "off"), desk.now)


def _ledger_url(desk: Desk) -> str | None:
    path = desk.settings.state_dir / "ledger.db"
    named = value_of(desk.settings.environ, "MCPFLEET_DATABASE_URL")
    return named or (f"sqlite:///{path}" if path.exists() else None)


def _ledger(desk: Desk) -> Iterator[Finding]:
    from orchestrator.cli.checkup_ledger import check_ledger

    try:
        url = _ledger_url(desk)
    except SettingsError as error:
        yield Finding(check="ledger", health=FAIL, detail=error.message, mend="correct MCPFLEET_DATABASE_URL_FILE")
        return
    yield from check_ledger(url, desk.now)


def _files(desk: Desk) -> Iterator[Finding]:
    from orchestrator.cli.checkup_files import check_blobs, check_disks, check_files
    from orchestrator.cli.checkup_ledger import sqlite_path

    environ, state, path = desk.settings.environ, desk.settings.state_dir, None
    with suppress(SettingsError):  # the ledger's own check says so
        url = _ledger_url(desk)
        path = None if url is None else sqlite_path(url)
    blobs = Path(environ.get("MCPFLEET_BLOB_DIR") or state / "blobs")
    folders = {"ledger": path.parent if path else None, "blobs": blobs}
    node = environ.get("MCPFLEET_NODE_STATE_DIR")
    folders["node"] = Path(node) if node else None
    yield from check_files(environ, desk.now())
    yield from check_blobs(blobs)
    yield from check_disks({name: folder for name, folder in folders.items() if folder is not None})


def _machine(desk: Desk) -> Iterator[Finding]:
    from orchestrator.cli.checkup_machine import (
        check_dependencies,
        check_limits,
        check_node_tools,
        check_otlp,
        check_time,
        is_unsynchronised,
    )

    yield from check_dependencies(look().root / "requirements" / "dev.txt")
    yield from check_limits()
    yield from check_node_tools(desk.settings.environ)
    yield from check_otlp(desk.settings.environ)
    yield from check_time(desk.settings.environ, is_unsynchronised)


def _exposure(desk: Desk) -> Iterator[Finding]:
    from orchestrator.cli.checkup_exposure import check_flower, check_sealing

    local = read_fleet_file(desk.settings.state_dir)
    yield from check_sealing(desk.settings.environ)
    yield from check_flower(desk.settings.environ, (local.flower_url or "") if local else "")


def _orchestrator(desk: Desk) -> Iterator[Finding]:
    try:
        target = desk.target()
        with Api(target.url, target.token, desk.transport) as api:
            date = api.date_header()
            asked_at = desk.now()
            nodes = list(api.pages("/v1/nodes", NodeView))
    except FleetError as error:
        yield Finding(check="orchestrator", health=FAIL, detail=error.message)
        return
    yield Finding(
        check="orchestrator", health=OK, detail=f"{target.url} answers and takes the token of {target.source}"
    )
    yield _clock(date, asked_at)
    yield _nodes(nodes)


def _fleet(desk: Desk) -> Iterator[Finding]:
    """What the orchestrator shows; that it does not answer was found by the check before."""
    import httpx

    from orchestrator.cli.checkup_fleet import ANSWER_S as DOOR_S
    from orchestrator.cli.checkup_fleet import check_fleet

    try:
        target = desk.target()
        api = Api(target.url, target.token, desk.transport)
        api.date_header()
    except FleetError:
        return
    with api, httpx.Client(timeout=DOOR_S, trust_env=False, transport=desk.transport) as http:
        yield from check_fleet(api, desk.now(), http.get)
        yield from _queues(desk, api)


def _queues(desk: Desk, api: Api) -> Iterator[Finding]:
    """Both are asked: what is wrong with one of them was found before."""
    import redis

    from orchestrator.cli.checkup_broker import strangers
    from tasks.redis_clients import sync_client

    with suppress(SettingsError, redis.RedisError, OSError):
        if (url := _redis_url(desk)) is None:
            return
        with sync_client(url, answer_s=ANSWER_S) as client:
            yield strangers(client, [node.name for node in api.pages("/v1/nodes", NodeView)])


def _door_certificate(desk: Desk) -> Iterator[Finding]:
    from orchestrator.cli.checkup_door import check_door_certificate

    try:
        target = desk.target()
    except FleetError:
        return
    yield from check_door_certificate(target.url, desk.now())


def _clock(date: str | None, asked_at: float) -> Finding:
    if date is None:
        return Finding(check="clock", health=SKIP, detail="the orchestrator sends no Date")
    skew_s = asked_at - email.utils.parsedate_to_datetime(date).timestamp()
    detail = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the orchestrator's"
    if abs(skew_s) <= SKEW_MAX_S:
        return Finding(check="clock", health=OK, detail="agrees with the orchestrator's")
    mend = "set both clocks by NTP (timedatectl set-ntp true): deadlines travel as wall-clock time"
    return Finding(check="clock", health=FAIL, detail=detail, mend=mend)


def _nodes(nodes: list[NodeView]) -> Finding:
    active = [node for node in nodes if node.state is NodeState.ACTIVE]
    silent = [node.name for node in nodes if node.state is NodeState.LOST]
    if not active:
        return Finding(
            check="nodes",
            health=FAIL,
            detail="no node takes calls",
            mend="mcpfleet-worker run, or mcpfleet node uncordon",
        )
    if silent:
        mend = "look at their machines; mcpfleet nodes shows since when"
        return Finding(check="nodes", health=WARN, detail=f"{len(active)} active, lost: {', '.join(silent)}", mend=mend)
    pools = len({node.pool for node in active})
    return Finding(check="nodes", health=OK, detail=f"{len(active)} active in {pools} pool{'s' if pools != 1 else ''}")
