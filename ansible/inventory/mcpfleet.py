#!/usr/bin/env python3
"""Ansible's inventory of a fleet: the nodes and machines that the orchestrator knows.

A script inventory, by `--list`. Owns what becomes a host, a group and a variable. Refuses to guess:
an orchestrator that does not answer is an error, never an empty fleet. Standard library only, because
it runs in whatever Python Ansible runs in.

Environment: MCPFLEET_URL (several replicas separated by commas), and MCPFLEET_TOKEN or MCPFLEET_TOKEN_FILE.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

ANSWER_S = 15.0
LOOPBACK = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared, never bound
NODES = "mcpfleet_nodes"
"""Every host that is, or becomes, a node."""
ADDRESS_LABEL = "address"
"""A node's label that says where Ansible reaches its machine."""


class InventoryError(Exception):
    """What was wrong and what to do, in one line."""


def inventory(nodes: Iterable[Mapping[str, Any]], claims: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Ansible's JSON form: hosts by node name, grouped by pool and state.

    A claim says more about its machine than the node that runs there, so its address wins; the node says
    more about its own state.
    """
    hosts: dict[str, dict[str, Any]] = {}
    groups: dict[str, set[str]] = {NODES: set()}
    for claim in claims:
        if claim["state"] == "gone":
            continue
        name = str(claim["node"])
        hosts[name] = _named(claim, name) | {"mcpfleet_claim": claim["claim"], "mcpfleet_claim_state": claim["state"]}
        _join(groups, name, f"pool_{claim['pool']}", f"claim_{claim['state']}", NODES)
        if claim.get("address"):
            hosts[name]["ansible_host"] = claim["address"]
    for node in nodes:
        name = str(node["name"])
        known = hosts.get(name, {})
        address = known.get("ansible_host") or _address(node)
        hosts[name] = known | _named(node, name) | {"mcpfleet_state": node["state"]}
        if address:
            hosts[name]["ansible_host"] = address
        _join(groups, name, f"pool_{node['pool']}", f"state_{node['state']}", NODES)
    listed = {group: {"hosts": sorted(names)} for group, names in sorted(groups.items())}
    return {"_meta": {"hostvars": hosts}, "all": {"children": sorted(listed)}, **listed}


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The fleet as the first replica that answers tells it.

    Raises:
        InventoryError: none answers, or the token is not good.
    """
    urls = [url.strip().rstrip("/") for url in environ.get("MCPFLEET_URL", "").split(",") if url.strip()]
    if not urls:
        raise InventoryError("MCPFLEET_URL is not set: say where the orchestrator answers, e.g. http://10.0.0.1:8700")
    token, refused = _token(environ), []
    for url in urls:
        try:
            claims = _pages(url, "/v1/scale/claims", token)
            return inventory(_pages(url, "/v1/nodes", token) or [], claims or [])
        except OSError as error:
            refused.append(f"{url}: {error}")
    raise InventoryError(
        f"no orchestrator answers ({'; '.join(refused)}); start it, or name the hosts by hand: "
        "ansible-playbook -i 'HOST,' …"
    )


def _token(environ: Mapping[str, str]) -> str:
    if environ.get("MCPFLEET_TOKEN"):
        return environ["MCPFLEET_TOKEN"]
    path = environ.get("MCPFLEET_TOKEN_FILE", "")
    if not path:
        raise InventoryError("set MCPFLEET_TOKEN, or MCPFLEET_TOKEN_FILE to a file that holds the token")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InventoryError(f"MCPFLEET_TOKEN_FILE {path} cannot be read: {error.strerror}") from error


def _pages(url: str, path: str, token: str) -> list[dict[str, Any]] | None:
    """All items of a listing; None where this orchestrator has no such path."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = _get(url, f"{path}?cursor={quote(cursor)}" if cursor else path, token)
        if page is None:
            return None
        items += page["items"]
        cursor = page.get("next") or ""
        if not cursor:
            return items


def _get(url: str, path: str, token: str) -> dict[str, Any] | None:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise InventoryError(f"MCPFLEET_URL {url!r} is not an http or https address")
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - above
    # No proxy of the environment: it would see the token.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_S) as answer:
            page: dict[str, Any] = json.load(answer)
            return page
    except urllib.error.HTTPError as error:
        if error.code == 404:  # noqa: PLR2004
            return None
        if error.code in {401, 403}:
            raise InventoryError(f"{url} refuses the token ({error.code}); check MCPFLEET_TOKEN") from error
        raise
    except ValueError as error:
        raise InventoryError(f"{url}{path} did not answer JSON ({error}); is that an orchestrator?") from error


def _named(seen: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"node_name": name, "node_pool": seen["pool"]}


def _address(node: Mapping[str, Any]) -> str:
    """Its label, else the host under which it serves; a node that serves on loopback only has none."""
    label = str(node.get("labels", {}).get(ADDRESS_LABEL, ""))
    host = urlsplit(str(node.get("url", ""))).hostname or ""
    return label or ("" if host in LOOPBACK else host)


def _join(groups: dict[str, set[str]], name: str, *wanted: str) -> None:
    for group in wanted:
        groups.setdefault(re.sub(r"\W", "_", group), set()).add(name)


def main() -> int:
    """What Ansible calls: `--list` for everything; `--host` is answered by `_meta`."""
    if sys.argv[1:2] == ["--host"]:
        print("{}")
        return 0
    try:
        print(json.dumps(read(os.environ), indent=2, sort_keys=True))
    except InventoryError as error:
        print(f"mcpfleet inventory: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
