"""The local fleet: starts its processes in order, watches them, ends all of them.

Redis → orchestrator and Flower → nodes; back: nodes (they drain) → orchestrator → Flower → Redis.
A node or Flower that dies is started again with backoff; without Redis or the orchestrator there is
no fleet, so their death ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.local import processes, redis_server
from orchestrator.local.child import Child, ChildSpec
from orchestrator.local.errors import ChildFailed
from orchestrator.local.guardline import GuardLine
from orchestrator.local.lock import StateLock
from orchestrator.local.logfile import LogFile
from orchestrator.local.machines import LocalMachines
from orchestrator.local.orphans import adopt_orphans, end_orphans, reap_orphans
from orchestrator.local.plan import Plan
from orchestrator.local.statefile import (
    FLEET_FILE,
    IDENTITY_FILE,
    FleetFile,
    IdentityFile,
    read_identity,
    write_private,
)

RESTART_FIRST_S, RESTART_CAP_S = 0.5, 15.0
TICK_S = 1.0
HEADLESS_STOP_S = 1.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Step:
    """Something a person watching wants to know. `state`: starting, ready, stopping, stopped, restarting."""

    name: str
    state: str
    detail: str = ""


Report = Callable[[Step], None]


class LocalFleet:
    """One fleet in one state directory."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self.plan = plan
        self.file: FleetFile | None = None
        self._report = report
        self._lock = StateLock(plan.state_dir)
        self._machines = None if plan.machines is None else LocalMachines(plan.state_dir, processes.drain_s_of(plan))
        self._guard: GuardLine | None = None
        self._children: dict[str, Child] = {}
        self._sockets: list[socket.socket] = []
        self._http = httpx.AsyncClient(timeout=5.0, trust_env=False)

    @property
    def logs_dir(self) -> Path:
        """A log per process."""
        return self.plan.state_dir / "logs"

    @property
    def children(self) -> dict[str, Child]:
        """By name, in the order they were started."""
        return self._children

    def claim(self) -> None:
        """Take the state directory; from here on `stop` is owed.

        Raises:
            AlreadyUp: a fleet runs in this directory.
        """
        self.plan.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()

    async def start(self) -> FleetFile:
        """Start everything; also on failure, `stop` ends what was started.

        Raises:
            ChildFailed: a process did not come up.
            NoRedisServer: none is configured and none is found.
        """
        for folder in (self.logs_dir, self.plan.state_dir / "nodes"):
            folder.mkdir(mode=0o700, exist_ok=True)
        adopt_orphans()
        self._guard = GuardLine()
        self._guard.remove(self.plan.state_dir / FLEET_FILE)
        if self.plan.ephemeral:
            self._guard.remove(self.plan.scratch or self.plan.state_dir)
        identity = self._identity()
        redis_url = self.plan.redis_url or await self._start_redis()
        api, flower = self._listen(identity.port), self._listen(identity.flower_port)
        identity = identity.model_copy(update={"port": _port(api), "flower_port": _port(flower)})
        write_private(self.plan.state_dir / IDENTITY_FILE, identity)
        fleet = self._describe(identity, redis_url)
        # All at once: nodes start their servers while the orchestrator starts, and wait for it to join.
        specs = [*self._core_specs(fleet, api, flower, identity), *self._node_specs(fleet)]
        await together(*(self._start_child(spec) for spec in specs))
        write_private(self.plan.state_dir / FLEET_FILE, fleet)
        self.file = fleet
        return fleet

    async def watch(self) -> None:
        """Keep it running; returns only by being cancelled.

        Raises:
            ChildFailed: Redis or the orchestrator died.
        """
        await together(self._tick(), *(self._keep(child) for child in self._children.values()))

    async def stop(self, hurry: asyncio.Event) -> list[str]:
        """End everything, in order. Returns the names of those that had to be killed.

        Without orchestrator or Redis nodes have nobody to hand anything back to: they are not waited for.
        """
        is_headless = any(child.spec.is_essential and child.pid is None for child in self._children.values())
        nodes, *rest = self._stop_waves()
        # Machines with the nodes: they too need the orchestrator to hand back what they hold.
        machines = self._end_machines(hurry, is_headless)
        killed, names = await asyncio.gather(machines, self._stop_wave(nodes, hurry, is_headless))
        killed += names
        for wave in rest:
            killed += await self._stop_wave(wave, hurry, is_headless)
        await asyncio.to_thread(end_orphans, self._guard.pid if self._guard else 0)
        if self._machines is not None:
            await self._machines.ask()  # one that was ordered meanwhile; its process has just been ended
        await self._http.aclose()
        for held in self._sockets:
            held.close()
        self._clean()
        return killed

    async def _stop_wave(self, wave: list[Child], hurry: asyncio.Event, is_headless: bool) -> list[str]:
        names = await asyncio.gather(*(self._stop_child(child, hurry, is_headless) for child in wave))
        return [name for name in names if name]

    async def _end_machines(self, hurry: asyncio.Event, is_headless: bool) -> list[str]:
        if self._machines is None or is_headless:
            return []
        self._report(Step("machines", "stopping"))
        await self._wind_down()
        left = await self._machines.end(hurry)
        self._report(Step("machines", "stopped", "killed" if left else ""))
        return left

    async def _wind_down(self) -> None:
        """First: whoever does not know that the fleet stops orders others for the calls that now wait."""
        if self.file is None:
            return
        with contextlib.suppress(httpx.HTTPError):  # it does not answer: then it orders nothing either
            headers = {"Authorization": f"Bearer {self.file.token}"}
            await self._http.post(f"{self.file.url}/v1/scale/wind-down", headers=headers)

    async def _start_redis(self) -> str:
        binary = redis_server.find_server(self.plan.environ.get("PATH", ""))
        folder = self.plan.state_dir / "redis"
        for tries_left in reversed(range(redis_server.PORT_TRIES)):
            place = redis_server.RedisPlace(redis_server.free_port(), secrets.token_urlsafe(24))
            try:
                await self._start_child(redis_server.spec(binary, place, folder, self.plan.base_environ()))
            except ChildFailed as error:
                if not tries_left or "in use" not in error.tail:
                    raise
            else:
                return place.url
        raise AssertionError("the last try returns or raises")

    def _core_specs(
        self, fleet: FleetFile, api: socket.socket, flower: socket.socket, identity: IdentityFile
    ) -> list[ChildSpec]:
        specs = [processes.orchestrator(self.plan, fleet, api, self._http)]
        if self.plan.with_flower:
            specs.append(processes.flower(self.plan, fleet, flower, identity, self._http))
        return specs

    def _node_specs(self, fleet: FleetFile) -> list[ChildSpec]:
        return [processes.node(self.plan, node, fleet, self._http) for node in self.plan.nodes]

    async def _start_child(self, spec: ChildSpec) -> None:
        assert self._guard is not None
        child = Child(spec, LogFile(self.logs_dir / f"{spec.name}.log"), self._guard)
        self._children[spec.name] = child
        self._report(Step(spec.name, "starting"))
        await child.start()
        await child.until_ready()
        self._report(Step(spec.name, "ready"))

    async def _keep(self, child: Child) -> None:
        wait_s = RESTART_FIRST_S
        while True:
            status = await child.died()
            failure = child.failure(f"died with status {status}")
            if child.spec.is_essential:
                raise failure
            self._report(Step(child.spec.name, "restarting", f"{failure.what}; again in {wait_s:g} s"))
            await asyncio.sleep(wait_s)
            wait_s = min(RESTART_CAP_S, wait_s * 2)
            child.restarts += 1
            await child.start()
            with contextlib.suppress(ChildFailed):
                await child.until_ready()
                self._report(Step(child.spec.name, "ready", "again"))
                wait_s = RESTART_FIRST_S

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for child in self._children.values():
                child.log.bound()
            own = {child.pid for child in self._children.values()} | {self._guard.pid if self._guard else 0}
            reap_orphans(own)

    async def _stop_child(self, child: Child, hurry: asyncio.Event, is_headless: bool) -> str:
        self._report(Step(child.spec.name, "stopping"))
        if is_headless and not child.spec.is_essential:
            await child.stop(hurry, HEADLESS_STOP_S)
            is_clean = True
        else:
            is_clean = await child.stop(hurry)
        self._report(Step(child.spec.name, "stopped", "" if is_clean else "killed"))
        return "" if is_clean else child.spec.name

    def _stop_waves(self) -> list[list[Child]]:
        """Nodes first: they need the orchestrator and Redis to hand back what they hold."""
        last = ("orchestrator", "flower", "redis")
        nodes = [child for name, child in self._children.items() if name not in last]
        return [nodes, *([self._children[name]] for name in last if name in self._children)]

    def _identity(self) -> IdentityFile:
        known = read_identity(self.plan.state_dir)
        identity = known or IdentityFile(
            token=f"mcf_fleet_{secrets.token_urlsafe(32)}",
            join_token=f"mcf_join_{secrets.token_urlsafe(32)}",
            flower_password=secrets.token_urlsafe(18),
        )
        return identity.model_copy(update={"port": self.plan.port}) if self.plan.port else identity

    def _listen(self, wanted: int) -> socket.socket:
        """Bound here and inherited by the child, so that nobody can take the port in between."""
        for port in (wanted, 0):
            held = socket.socket()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held.bind((LOOPBACK, port))
            except OSError as error:
                held.close()
                if port == self.plan.port and port:
                    raise ChildFailed(
                        "orchestrator", f"cannot have port {port}: {error.strerror}", "", self.logs_dir
                    ) from error
                continue
            held.listen(1024)
            self._sockets.append(held)
            return held
        raise AssertionError("port 0 is always free")

    def _describe(self, identity: IdentityFile, redis_url: str) -> FleetFile:
        url = f"http://{LOOPBACK}:{identity.port}"
        login = f"{processes.FLOWER_USER}:{identity.flower_password}"
        flower_url = f"http://{login}@{LOOPBACK}:{identity.flower_port}/tasks" if self.plan.with_flower else ""
        return FleetFile(
            url=url,
            token=identity.token,
            join_token=identity.join_token,
            mcp_url=f"{url}/mcp",
            metrics_url=f"{url}/metrics",
            flower_url=flower_url,
            redis_url=redis_url,
            pid=os.getpid(),
        )

    def _clean(self) -> None:
        (self.plan.state_dir / FLEET_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.plan.state_dir / "flower", ignore_errors=True)
        self._lock.release()
        if self.plan.ephemeral:
            shutil.rmtree(self.plan.state_dir, ignore_errors=True)
        if self._guard is not None:
            self._guard.dismiss()


async def together(*work: Coroutine[object, object, None]) -> None:
    """All of it at once; the first failure cancels the rest and is raised as it is."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _port(held: socket.socket) -> int:
    port: int = held.getsockname()[1]
    return port
