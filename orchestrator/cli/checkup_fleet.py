"""Doctor: the fleet as its orchestrator shows it, and its doors: what a person should mend before it hurts."""

from __future__ import annotations

import email.utils
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import httpx

from orchestrator.cli.api import Api
from orchestrator.cli.durations import took
from orchestrator.cli.exits import Exit, of_error
from orchestrator.cli.findings import Finding, Health, is_loopback
from tasks.errors import FleetError
from tasks.identity_wire import KeyView
from tasks.node import LEASE_TTL_S, RENEW_EVERY_S, NodeState
from tasks.scale_wire import MachineView, ScaleView
from tasks.wire import NodeView

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
KEY_DUE_S = 7 * 86_400.0
NODES_ASKED = 20
ANSWER_S = 2.0
SKEW_MAX_S = LEASE_TTL_S - RENEW_EVERY_S
Ask = Callable[[str], httpx.Response]


def check_fleet(api: Api, now: float, ask: Ask) -> Iterator[Finding]:
    """Findings about nodes, machines and keys; what these credentials may not see is left out.

    Args:
        api: of the orchestrator.
        now: seconds since the epoch, by this machine.
        ask: a plain GET without any credential.
    """
    nodes = list(api.pages("/v1/nodes", NodeView))
    yield from versions(nodes, api)
    yield from servers(nodes)
    yield from clocks(nodes, now, ask)
    yield metrics_door(api.url, ask)
    yield from _if_allowed(machines(api))
    yield from _if_allowed(keys(api, now))


def _if_allowed(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Nothing, where these credentials may not see it."""
    try:
        yield from findings
    except FleetError as error:
        if of_error(error) is not Exit.NOT_ALLOWED:
            raise


def versions(nodes: Sequence[NodeView], api: Api) -> Iterator[Finding]:
    """Nodes of another version than the orchestrator's."""
    form = api.send("GET", "/health")
    ours = str(form.get("version", "")) if isinstance(form, dict) else ""
    others = {node.name: node.version for node in nodes if node.version and node.version != ours}
    if not ours or not others:
        yield Finding(check="versions", health=OK, detail=f"orchestrator and nodes are {ours or 'of one version'}")
        return
    few = ", ".join(f"{name} is {version}" for name, version in sorted(others.items())[:5])
    mend = "upgrade them one by one: mcpfleet node drain NAME, then start the new version"
    yield Finding(check="versions", health=WARN, detail=f"the orchestrator is {ours}, {few}", mend=mend)


def servers(nodes: Sequence[NodeView]) -> Iterator[Finding]:
    """MCP servers that failed their checks, and open circuits."""
    found = [(node.name, server, why) for node in nodes for server, why in {**node.unhealthy, **node.circuits}.items()]
    for name, server, why in found:
        where = f"server {server} of {name}" if server else f"node {name}"
        mend = f"mcpfleet logs --node {name} --level warning; calls go elsewhere until it is well"
        yield Finding(check="circuits", health=WARN, detail=f"{where} is passed by: {why}", mend=mend)
    if nodes and not found:
        yield Finding(check="circuits", health=OK, detail="no node and no server is passed by")


def clocks(nodes: Sequence[NodeView], now: float, ask: Ask) -> Iterator[Finding]:
    """Clocks of nodes: what they said when they renewed; of older ones, the Date of their own /health."""
    active = [one for one in nodes if one.state is NodeState.ACTIVE]
    said = {one.name: one.clock_ahead_s for one in active if one.clock_ahead_s is not None}
    wrong = [_off(name, ahead_s) for name, ahead_s in said.items() if abs(ahead_s) > SKEW_MAX_S]
    asked = len(said)
    for node in [one for one in active if one.name not in said and one.url][:NODES_ASKED]:
        try:
            date = ask(f"{node.url}/health").headers.get("date")
        except httpx.HTTPError:
            continue
        if date is None:
            continue
        asked += 1
        skew_s = email.utils.parsedate_to_datetime(str(date)).timestamp() - now
        if abs(skew_s) > SKEW_MAX_S:
            wrong.append(_off(node.name, skew_s))
    if wrong:
        mend = "set them by NTP (timedatectl set-ntp true): logs and certificates go by them"
        yield Finding(check="node clocks", health=WARN, detail=", ".join(wrong), mend=mend)
    elif asked:
        yield Finding(check="node clocks", health=OK, detail=f"{asked} agree with the fleet's")
    elif nodes:
        yield Finding(
            check="node clocks", health=SKIP, detail="no node says its time, and no /health is reached from here"
        )


def _off(name: str, ahead_s: float) -> str:
    return f"{name} is {took(abs(ahead_s))} {'ahead' if ahead_s > 0 else 'behind'}"


def metrics_door(url: str, ask: Ask) -> Finding:
    """Whether metrics, which name tools and nodes, are for anybody who can reach the address."""
    try:
        status = ask(f"{url}/metrics").status_code
    except httpx.HTTPError as error:
        return Finding(check="metrics", health=SKIP, detail=f"/metrics does not answer: {error}")
    if status != httpx.codes.OK:
        return Finding(check="metrics", health=OK, detail=f"nobody reads them without a token ({status})")
    if is_loopback(urlsplit(url).hostname or ""):
        return Finding(check="metrics", health=OK, detail="open, on loopback only")
    mend = "MCPFLEET_OPEN_METRICS=false, and give Prometheus a key with metrics:read"
    return Finding(check="metrics", health=WARN, detail="anybody who reaches the orchestrator reads them", mend=mend)


def machines(api: Api) -> Iterator[Finding]:
    """Machines that cost money and are not joined, and what clouds complain of."""
    view = api.get("/v1/scale", ScaleView)
    if view.note:
        return
    said = list(view.alerts)
    standing = Counter(machine.standing for machine in api.pages("/v1/scale/claims", MachineView))
    if standing["left"]:
        said.append(f"{standing['left']} machines run and are not joined")
    for one in said:
        yield Finding(
            check="machines", health=WARN, detail=one, mend="mcpfleet scale machines; mcpfleet scale explain POOL"
        )
    if not said:
        yield Finding(check="machines", health=OK, detail=f"{sum(standing.values())} known, none left over")


def keys(api: Api, now: float) -> Iterator[Finding]:
    """API keys that end soon."""
    due = [
        key
        for key in api.pages("/v1/keys", KeyView)
        if key.expires_at is not None and now < key.expires_at < now + KEY_DUE_S
    ]
    for key in due:
        left = took((key.expires_at or now) - now)
        mend = f"mcpfleet keys rotate {key.id}"
        yield Finding(check="api keys", health=WARN, detail=f"{key.name} ends in {left}", mend=mend)
    if not due:
        yield Finding(check="api keys", health=OK, detail="none ends within a week")
