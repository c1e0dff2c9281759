"""What is shown on the running file: calls, scaling, what containers may do, kills of each kind, secrets kept.

Each act raises NotSeen where something did not hold, and says in one line what did.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.compose.client import Caller, NotSeen, Traffic, until
from tests.compose.engine import EngineFailed
from tests.compose.stack import Container, Stack

URL = "https://localhost:8443"
NODES = 3
LONG_S = 20.0
COMMAND_S = 300.0
KILLED = ("prometheus", "alertmanager", "node-exporter", "flower", "proxy", "redis", "postgres")
"""Those of which there is one; a worker and the leader are killed with more care."""
SECRET_CHARS = 16
"""Shorter words are ports and headers, not secrets."""
Say = Callable[[str], None]


class Play:
    """The acts, on one stack."""

    def __init__(self, stack: Stack, say: Say) -> None:
        self._stack, self._say = stack, say
        self._ca = stack.secrets / "ca.pem"
        self._once = self._copy = ""

    def all(self) -> None:
        """In order; each builds on the one before."""
        acts = (self._up, self._confined, self._called, self._backed_up, self._scaled, self._killed, self._made_anew)
        for act in (*acts, self._restored, self._kept):
            began = time.monotonic()
            act()
            self._say(f"    {time.monotonic() - began:.0f} s")

    def _caller(self) -> Caller:
        return Caller(URL, (self._stack.secrets / "token").read_text().strip(), self._ca)

    def _up(self) -> None:
        self._say("up: every service healthy")
        self._stack.make_secrets()
        services = self._stack.services()
        self._stack.compose("up", "-d", "--no-build", *services)
        until(lambda: all(one.is_well for one in self._stack.containers()), "every container is healthy")
        until(self._caller().nodes, "a node joins")
        self._say(f"    {len(self._stack.containers())} containers of {len(services)} services")

    def _confined(self) -> None:
        self._say("confined: no root, no writable root, no capability, limits, one port")
        wrong = [f"{one.name}: {fault}" for one in self._stack.containers() for fault in faults(self._stack, one)]
        if wrong:
            raise NotSeen("; ".join(wrong))

    def _called(self) -> None:
        self._say("called: through the proxy, over TLS")
        caller = self._caller()
        words = [sys.executable, "-m", "orchestrator.cli.main", "call", "time.get_current_time", "timezone=UTC"]
        environ = {"MCPFLEET_URL": URL, "MCPFLEET_TOKEN_FILE": str(self._stack.secrets / "token")}
        trusting = environ | {"SSL_CERT_FILE": str(self._ca)}
        told = subprocess.run(words, env=trusting, check=False, capture_output=True, text=True, timeout=COMMAND_S)
        if told.returncode or '"timezone": "UTC"' not in told.stdout:
            raise NotSeen(f"mcpfleet call: {told.stdout} {told.stderr}")
        self._say(f"    mcpfleet call: {told.stderr.strip()}")
        blind = subprocess.run(words, env=environ, check=False, capture_output=True, text=True, timeout=COMMAND_S)
        if not blind.returncode:
            raise NotSeen("a client without the fleet's authority believed its certificate")
        answer = caller.by_mcp("time.get_current_time", {"timezone": "UTC"})
        if answer.is_error or answer.structured_content["timezone"] != "UTC":
            raise NotSeen(f"the MCP client got {answer}")
        self._say(f"    MCP SDK's client: {answer.structured_content['datetime']}")
        login = tuple((self._stack.secrets / "flower_login").read_text().strip().split(":"))
        seen = {
            "/health": caller.status("/health"),
            "/metrics": caller.status("/metrics"),
            "/%6Detrics": caller.status("/%6Detrics"),
            "/v1/targets": caller.status("/v1/targets"),
            "/flower/": caller.status("/flower/", headers={"Authorization": ""}),
            "/flower/workers": caller.status("/flower/workers", auth=login),
        }
        hidden = {"/metrics": 404, "/%6Detrics": 404, "/v1/targets": 404}
        if seen != hidden | {"/health": 200, "/flower/": 401, "/flower/workers": 200}:
            raise NotSeen(f"the proxy answers {seen}")
        until(self._is_scraped, "Prometheus finds every target up")

    def _is_scraped(self) -> bool:
        ask = "wget -qO- 'http://127.0.0.1:9090/api/v1/query?query=count(up)+-+sum(up)'"
        return '"0"]' in self._stack.inside(self._stack.containers("prometheus")[0], ask)

    def _backed_up(self) -> None:
        self._say("backed up: ledger and blobs, under traffic, each read again")
        self._once = self._echoed("before")
        with Traffic(self._caller()) as traffic:
            for _ in range(2):
                self._backup("backup")
        self._say(f"    {traffic.check()}")
        self._copy = self._backup("ls", "/backups").split()[-1]

    def _backup(self, *words: str) -> str:
        return self._stack.compose("run", "-T", "--rm", "--no-deps", "backup", *words)

    def _echoed(self, key: str) -> str:
        caller = self._caller()
        view = caller.ended(caller.accepted(key, "probe.echo", {"word": key}))
        if view["state"] != "succeeded":
            raise NotSeen(f"{key}: a call ended as {view['state']}")
        return str(view["id"])

    def _scaled(self) -> None:
        self._say(f"scaled: {NODES} workers")
        self._scale()
        self._say(f"    {' '.join(self._joined())}")

    def _scale(self, *words: str) -> None:
        self._stack.compose("up", "-d", "--no-build", "--no-deps", *words, "--scale", f"worker={NODES}", "worker")

    def _joined(self) -> list[str]:
        caller = self._caller()
        return until(lambda: names if len(names := caller.nodes()) == NODES else None, f"{NODES} nodes are there")

    def _killed(self) -> None:
        self._say("killed: SIGKILL to one container of each kind, under traffic")
        caller = self._caller()
        with Traffic(self._caller()) as traffic:
            for service in KILLED:
                self._kill(self._stack.containers(service)[0])
            self._kill(self._leader(), "the leader")
            running = caller.accepted("long", "probe.sleep", {"seconds": LONG_S, "steps": 20})
            node = until(lambda: self._runs(caller, running), "the long call runs")
            self._kill(self._node(node), "in the middle of a call")
            view = caller.ended(running)
            if view["state"] != "succeeded" or view["fence"] < 2:
                raise NotSeen(f"the call whose node was killed is {view['state']} at attempt {view['fence']}")
            self._say(f"    the call that was running there succeeded at attempt {view['fence']}, on {view['node']}")
        self._say(f"    {traffic.check()}")
        self._joined()

    @staticmethod
    def _runs(caller: Caller, invocation: str) -> str | None:
        view = caller.get(f"/v1/invocations/{invocation}")
        return view["node"] if view["state"] == "running" else None

    def _kill(self, container: Container, which: str = "") -> None:
        began, caller = time.monotonic(), self._caller()
        self._stack.kill(container)
        key = f"after-{container.name}-{began}"
        view = caller.ended(caller.accepted(key, "probe.echo", {"after": container.name}))
        if view["state"] != "succeeded":
            raise NotSeen(f"after {container.name} was killed a call ended as {view['state']}")
        called = time.monotonic() - began

        def is_back() -> bool:
            # All of them: an orchestrator that lost its lease to PostgreSQL's absence starts anew, too.
            now = self._stack.containers()
            is_new = any(one.name == container.name and one.started != container.started for one in now)
            return is_new and all(one.is_well for one in now)

        until(is_back, f"{container.name} is back")
        back = time.monotonic() - began
        self._say(
            f"    {container.name} {which}: a call goes through after {called:.1f} s, all healthy after {back:.0f} s"
        )

    def _leader(self) -> Container:
        ask = "PGPASSWORD=$(cat /run/secrets/postgres_password) psql -h 127.0.0.1 -U mcpfleet -tAc"
        postgres = self._stack.containers("postgres")[0]
        host = self._stack.inside(postgres, f"{ask} 'SELECT address FROM mcpfleet_epoch'").strip().partition(":")[0]
        return next(one for one in self._stack.containers("orchestrator") if one.id == host)

    def _node(self, name: str) -> Container:
        named = (one for one in self._stack.containers("worker"))
        return next(one for one in named if self._stack.inside(one, "cat /var/lib/mcpfleet/name").strip() == name)

    def _made_anew(self) -> None:
        self._say("made anew: new containers, as an upgrade makes them, are the same nodes")
        before = self._joined()
        self._scale("--force-recreate")
        until(lambda: all(one.is_well for one in self._stack.containers("worker")), "the new workers are healthy")
        if (after := self._joined()) != before:
            raise NotSeen(f"nodes were {before}, and are {after}")

    def _restored(self) -> None:
        self._say("restored: the database is lost, the backup put back; nodes that joined since are back by themselves")
        before, since, put_back = (
            self._joined(),
            self._echoed("since"),
            ("mcpfleet", "ledger", "restore", f"/backups/{self._copy}"),
        )
        try:
            self._backup(*put_back)
        except EngineFailed as error:
            if "an orchestrator runs" not in str(error):
                raise
        else:
            raise NotSeen("a ledger was restored under a running orchestrator")
        self._stack.compose("stop", "orchestrator")
        log_in = "export PGPASSWORD=$(cat /run/secrets/postgres_password) PGHOST=127.0.0.1 PGUSER=mcpfleet"
        self._stack.inside(self._stack.containers("postgres")[0], f"{log_in}; dropdb mcpfleet && createdb mcpfleet")
        self._backup(*put_back)
        self._stack.compose("start", "orchestrator")
        until(lambda: all(one.is_well for one in self._stack.containers()), "every container is healthy")
        if (after := self._joined()) != before:
            raise NotSeen(f"nodes were {before}, and are {after}")
        caller = self._caller()
        seen = (caller.get(f"/v1/invocations/{self._once}")["state"], caller.status(f"/v1/invocations/{since}"))
        if seen != ("succeeded", 404):
            raise NotSeen(f"the call before the backup and the one since are {seen}")
        self._echoed("anew")

    def _kept(self) -> None:
        self._say("kept: no secret in what Docker shows of containers, nor in their logs")
        shown = "\n".join(str(one.form) for one in self._stack.containers())
        logs = self._stack.compose("logs", "--no-color")
        for value in values(self._stack.secrets):
            for where, text in (("docker inspect", shown), ("the logs", logs)):
                if value in text:
                    raise NotSeen(f"a secret stands in {where}")
        self._say(f"    {len(values(self._stack.secrets))} values, {len(logs.splitlines())} lines of logs")


def faults(stack: Stack, one: Container) -> list[str]:
    """What a container may that it should not."""
    host, config = one.form["HostConfig"], one.form["Config"]
    users = {line.split()[1] for line in stack.docker("top", one.name, "-eo", "pid,uid").splitlines()[1:]}
    cannot_write = "touch /fault 2>/dev/null && echo wrote; true"
    checks = {
        "runs as root": config["User"].split(":")[0] in {"", "0", "root"} or "0" in users,
        "its root is writable": not host["ReadonlyRootfs"] or "wrote" in stack.inside(one, cannot_write),
        "has capabilities": host["CapDrop"] != ["ALL"] or bool(host["CapAdd"]) or bool(host["Privileged"]),
        "may gain privileges": "no-new-privileges:true" not in (host["SecurityOpt"] or []),
        "has no limits": not (host["Memory"] and host["NanoCpus"] and host["PidsLimit"]),
        "logs without end": "max-size" not in host["LogConfig"]["Config"],
        "publishes a port": bool(host["PortBindings"]) and one.service != "proxy",
    }
    return [fault for fault, is_so in checks.items() if is_so]


def values(folder: Path) -> list[str]:
    """Every secret, also the one inside an address or a login."""
    found = set()
    for file in folder.iterdir():
        if file.name not in {"ca.pem", "tls_cert"}:
            text = file.read_text().strip()
            words = text.split()
            found |= {
                text,
                text.rpartition("@")[0].rpartition(":")[2],
                text.rpartition(":")[2],
                words[-1],
                max(words, key=len),
            }
    return sorted(value for value in found if len(value) >= SECRET_CHARS)
