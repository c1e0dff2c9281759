"""What machines install from the wheelhouse, beside what everything else installs."""

from __future__ import annotations

import re
from pathlib import Path


def _pins(root: Path, lock: str) -> dict[str, str]:
    text = (root / "requirements" / lock).read_text()
    return {found[1]: found[2] for found in re.finditer(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", text, re.MULTILINE)}


def test_machines_have_the_runtime_and_what_drives_agents(root: Path) -> None:
    """The same releases as without agents; only what drives them is more."""
    runtime, machines, dev = (_pins(root, lock) for lock in ("runtime.txt", "machines.txt", "dev.txt"))
    assert runtime.items() <= machines.items()
    assert {"agent-client-protocol", "claude-agent-sdk", "openai"} <= machines.keys() - runtime.keys()
    assert machines.items() <= dev.items()  # what was tested


def test_the_sdk_is_never_its_wheel(root: Path) -> None:
    """Its wheels bring a second Claude Code, in another version, that nobody may pass on."""
    for lock in ("machines.txt", "dev.txt"):
        assert "--no-binary claude-agent-sdk" in (root / "requirements" / lock).read_text().splitlines()
