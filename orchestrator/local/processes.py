"""The processes of a local fleet as `ChildSpec`s: what each is started with, and when it is ready."""

from __future__ import annotations

import socket
import sys

import httpx

from orchestrator.local.child import ChildSpec, Ready
from orchestrator.local.guard import MARK
from orchestrator.local.machines import CLOUD_DIR, MachinesPlan, write_pools_file
from orchestrator.local.plan import NODE_PREFIX, NodePlan, Plan
from orchestrator.local.servers import write_servers_file
from orchestrator.local.statefile import FleetFile, IdentityFile
from orchestrator.secrets.keyfile import new_key_file

FLOWER_USER = "fleet"
START_S = 90.0
"""On a machine that is busy with other things, imports alone take long."""
DRAIN_S = 5.0
"""What runs on a node may finish for so long after Ctrl-C, unless MCPFLEET_NODE_DRAIN_S says otherwise."""
AFTER_DRAIN_S = 25.0
"""To stop what goes on all the same, close its MCP servers, settle and leave."""
ORCHESTRATOR_STOP_S = 15.0
FLOWER_STOP_S = 5.0
KEY_FILE, FIRST_KID = "keys", "local-1"
_PYTHON = (sys.executable, "-P", "-m")
"""-P: the working directory is not on the import path, so no stray `tasks/` is imported."""


def orchestrator(plan: Plan, fleet: FleetFile, listen: socket.socket, http: httpx.AsyncClient) -> ChildSpec:
    """`mcpfleet serve` on the socket that the parent bound."""
    state = plan.state_dir
    environ = plan.orchestrator_environ()
    environ.setdefault("MCPFLEET_DATABASE_URL", f"sqlite:///{state / 'ledger.db'}")
    environ.setdefault("MCPFLEET_BLOB_DIR", str(state / "blobs"))
    if "MCPFLEET_KEY_FILE" not in environ:
        keys = state / KEY_FILE
        new_key_file(keys, kid=FIRST_KID)  # of a fleet in a folder of its own alone: a server is to be given one
        environ["MCPFLEET_KEY_FILE"] = str(keys)
    environ |= {
        "MCPFLEET_REDIS_URL": fleet.redis_url,
        "MCPFLEET_LISTEN_FD": str(listen.fileno()),
        "MCPFLEET_TOKEN": fleet.token,
        "MCPFLEET_JOIN_TOKEN": fleet.join_token,
        "MCPFLEET_FLOWER_FEED": str(plan.with_flower).lower(),
    }
    if plan.machines is not None:
        environ |= _autoscaling(plan, plan.machines, fleet)
    return ChildSpec(
        name="orchestrator",
        argv=(*_PYTHON, "orchestrator.cli.main", "serve"),
        environ=environ,
        cwd=state,
        ready=_answers(http, f"{fleet.url}/health"),
        ready_within_s=START_S,
        stop_within_s=ORCHESTRATOR_STOP_S,
        fds=(listen.fileno(),),
    )


def _autoscaling(plan: Plan, machines: MachinesPlan, fleet: FleetFile) -> dict[str, str]:
    """What the orchestrator needs to order machines; their own settings reach them by name, through it."""
    environ = plan.node_environ(machines.servers_file)
    secret = ("MCPFLEET_NODE_JOIN_TOKEN", "MCPFLEET_NODE_ENROL_TOKEN", "MCPFLEET_NODE_STATE_DIR")
    handed_on = {name: value for name, value in environ.items() if name not in secret}
    inherited = {**handed_on, MARK: ""}  # whose value is the guard's, and in the orchestrator's environment
    pools_file = write_pools_file(plan.state_dir, machines, inherited, drain_s_of(plan))
    return {
        **{name: value for name, value in handed_on.items() if name.startswith(NODE_PREFIX)},
        "MCPFLEET_POOLS_FILE": str(pools_file),
        "MCPFLEET_CLOUD_DIR": str(plan.state_dir / CLOUD_DIR),
        "MCPFLEET_URL_FOR_NODES": fleet.url,
    }


def drain_s_of(plan: Plan) -> float:
    """What runs on a node of this fleet may finish for so long."""
    return _drain_s({"MCPFLEET_NODE_DRAIN_S": str(DRAIN_S)} | plan.node_environ())


def flower(
    plan: Plan, fleet: FleetFile, listen: socket.socket, identity: IdentityFile, http: httpx.AsyncClient
) -> ChildSpec:
    """Flower, in an empty directory of its own."""
    folder, login = plan.state_dir / "flower", (FLOWER_USER, identity.flower_password)
    folder.mkdir(mode=0o700, exist_ok=True)
    environ = plan.base_environ() | {
        "MCPFLEET_FLOWER_REDIS_URL": fleet.redis_url,
        "MCPFLEET_FLOWER_LOGIN": ":".join(login),
        "MCPFLEET_FLOWER_LISTEN_FD": str(listen.fileno()),
    }
    return ChildSpec(
        name="flower",
        argv=(*_PYTHON, "orchestrator.cli.main", "flower"),
        environ=environ,
        cwd=folder,
        ready=_answers(http, f"http://127.0.0.1:{listen.getsockname()[1]}/healthcheck", login),
        stop_within_s=FLOWER_STOP_S,
        is_essential=False,
        fds=(listen.fileno(),),
    )


def node(plan: Plan, node: NodePlan, fleet: FleetFile, http: httpx.AsyncClient) -> ChildSpec:
    """`mcpfleet-worker run`, its journal in a directory of its own."""
    folder = plan.state_dir / "nodes" / node.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    servers_file = node.servers_file
    if servers_file is None:
        servers_file = folder / "servers.json"
        write_servers_file(servers_file, list(node.servers))
    environ = plan.node_environ(node.servers_file)
    environ |= {
        "MCPFLEET_NODE_ORCHESTRATOR_URL": fleet.url,
        "MCPFLEET_NODE_JOIN_TOKEN": fleet.join_token,
        "MCPFLEET_NODE_STATE_DIR": str(folder),
        "MCPFLEET_NODE_DRAIN_S": environ.get("MCPFLEET_NODE_DRAIN_S", str(DRAIN_S)),
    }
    words = ["--name", node.name, "--pool", node.pool, "--servers", str(servers_file)]
    for capability in node.capabilities:
        words += ["--capability", capability]
    return ChildSpec(
        name=node.name,
        argv=(*_PYTHON, "worker.cli", "run", *words),
        environ=environ,
        cwd=folder,
        ready=_has_joined(http, fleet, node.name),
        ready_within_s=START_S,
        stop_within_s=_drain_s(environ) + AFTER_DRAIN_S,
        is_essential=False,
    )


def _drain_s(environ: dict[str, str]) -> float:
    try:
        return float(environ["MCPFLEET_NODE_DRAIN_S"])
    except ValueError:
        return DRAIN_S  # the node itself says what is wrong with it


def _answers(http: httpx.AsyncClient, url: str, login: tuple[str, str] | None = None) -> Ready:
    async def ready() -> bool:
        try:
            answer = await http.get(url, auth=login)
        except httpx.HTTPError:
            return False
        return answer.is_success

    return ready


def _has_joined(http: httpx.AsyncClient, fleet: FleetFile, name: str) -> Ready:
    async def ready() -> bool:
        try:
            answer = await http.get(f"{fleet.url}/v1/nodes", headers={"Authorization": f"Bearer {fleet.token}"})
            form = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        items = form["items"] if isinstance(form, dict) else form
        return any(item["name"] == name and item["state"] == "active" for item in items)

    return ready
