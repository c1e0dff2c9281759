"""docker-compose.yml, as far as it can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make setup)")


@pytest.fixture
def compose(root: Path) -> dict[str, Any]:
    """The file, merged."""
    form: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text())
    return form


def test_everything_named_is_there(compose: dict[str, Any], root: Path) -> None:
    """A service depends on services that exist, mounts volumes that are declared, reads files that are there."""
    services = compose["services"]
    waits = {name for service in services.values() for name in service.get("depends_on", {})}
    mounts = {entry.partition(":")[0] for service in services.values() for entry in service.get("volumes", [])}
    configs = {entry["source"] for service in services.values() for entry in service.get("configs", [])}
    files = [Path(entry["file"]) for entry in compose["configs"].values()]
    files += [Path(service["build"]["dockerfile"]) for service in services.values() if "build" in service]
    assert waits <= set(services)
    assert {mount for mount in mounts if not mount.startswith("/")} <= set(compose["volumes"])
    assert configs <= set(compose["configs"])
    assert not [file for file in files if not (root / file).exists()]


def test_every_secret_is_asked_for(compose: dict[str, Any], root: Path) -> None:
    """A variable without a default is named in the example, and one service at least refuses to start without it."""
    text = (root / "docker-compose.yml").read_text()
    wanted = set(re.findall(r"\$\{([A-Z_]+)(?:\}|:\?)", text))
    offered = set(re.findall(r"^([A-Z_]+)=", (root / "deploy/compose.env.example").read_text(), re.MULTILINE))
    assert wanted <= offered
    assert wanted <= set(re.findall(r"\$\{([A-Z_]+):\?", text))


def test_ports_stay_on_loopback(compose: dict[str, Any]) -> None:
    """Nothing is exposed by accident."""
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_settings_it_sets_exist(compose: dict[str, Any]) -> None:
    """An unknown MCPFLEET_ variable stops a start: find it here first."""
    from orchestrator.flower.settings import VARIABLES
    from orchestrator.settings import OrchestratorSettings
    from worker.settings import NodeSettings

    known = {
        "orchestrator": {f"MCPFLEET_{field.upper()}" for field in OrchestratorSettings.model_fields},
        "worker": {f"MCPFLEET_NODE_{field.upper()}" for field in NodeSettings.model_fields},
        "flower": set(VARIABLES),
    }
    unknown = [v for name, fields in known.items() for v in compose["services"][name]["environment"] if v not in fields]
    assert not unknown


def test_no_secret_stands_in_a_command_line(compose: dict[str, Any]) -> None:
    """Every user of a host can read its processes' arguments: no variable in them, no option that takes a password."""
    lines = {
        name: str(service.get("command", "")) + str(service.get("healthcheck", {}).get("test", ""))
        for name, service in compose["services"].items()
    }
    assert not [
        name
        for name, line in lines.items()
        if re.search(r"\$[A-Z{]| -a |--requirepass|--basic-auth", line.replace("$$", ""))
    ]
