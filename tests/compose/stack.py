"""The Compose file as an operator starts it, in a folder that looks like a checkout, on an engine of ours.

Owns commands to Docker and what they say; refuses to judge it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.compose.engine import Engine, said

ROOT = Path(__file__).resolve().parents[2]
NOT_MADE = {"grafana": "in no package, and its image cannot be fetched here"}
"""Services that no image could be made for."""
BY_HAND = frozenset({"backup"})
"""In a profile of their own; version 1 lists them all the same."""
UP_S = 900.0


@dataclass(frozen=True, slots=True)
class Container:
    """One of them, as `docker inspect` shows it."""

    form: dict[str, Any]

    @property
    def name(self) -> str:
        """As Compose named it."""
        return str(self.form["Name"]).lstrip("/")

    @property
    def id(self) -> str:
        """As its own hostname says it."""
        return str(self.form["Id"])[:12]

    @property
    def service(self) -> str:
        """Of the Compose file."""
        return str(self.form["Config"]["Labels"]["com.docker.compose.service"])

    @property
    def pid(self) -> int:
        """Of its first process, as the engine's namespace numbers it."""
        return int(self.form["State"]["Pid"])

    @property
    def is_well(self) -> bool:
        """Running, and healthy by its own check."""
        state = self.form["State"]
        return bool(state["Running"]) and state.get("Health", {}).get("Status") == "healthy"

    @property
    def started(self) -> str:
        """When it started last."""
        return str(self.form["State"]["StartedAt"])


class Stack:
    """A project of Compose's."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self.folder = engine, folder
        folder.mkdir()
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("secrets"))
        for missing in ("provisioning", "dashboards"):
            (folder / "deploy/grafana" / missing).mkdir(parents=True, exist_ok=True)
        self.secrets = folder / "deploy" / "secrets"

    def make_secrets(self) -> str:
        """As an operator does."""
        return said([str(self.folder / "deploy" / "compose-secrets")], self._engine.environ, timeout=120)

    def compose(self, *words: str) -> str:
        """One command."""
        environ = self._engine.environ | {"COMPOSE_HTTP_TIMEOUT": str(int(UP_S))}
        return said(["docker-compose", "--no-ansi", *words], environ, timeout=UP_S, cwd=self.folder)

    def docker(self, *words: str) -> str:
        """One command."""
        return self._engine.docker(*words, timeout=UP_S)

    def services(self) -> list[str]:
        """Those that `up` starts, and that can be started here."""
        return sorted(set(self.compose("config", "--services").split()) - NOT_MADE.keys() - BY_HAND)

    def containers(self, service: str | None = None) -> list[Container]:
        """All that there are, by name."""
        ids = self.docker("ps", "-aq", "--filter", "label=com.docker.compose.project").split()
        found = [Container(form) for form in json.loads(self.docker("inspect", *ids))] if ids else []
        return sorted((one for one in found if service in {None, one.service}), key=lambda one: one.name)

    def inside(self, container: Container, script: str) -> str:
        """What a shell in it prints."""
        return self.docker("exec", container.name, "sh", "-c", script)

    def kill(self, container: Container) -> None:
        """SIGKILL to its first process, from outside. `docker kill` would count as the operator's wish to end it."""
        target = str(self._engine.first_process())
        said(["nsenter", "-t", target, "-p", "-m", "--", "kill", "-KILL", str(container.pid)], self._engine.environ)
