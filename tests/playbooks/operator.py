"""An operator at the controller: runs `ansible-playbook` against a fleet, and reads what it says it changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.testing.local import mcpfleet
from tests.vps.hall import Hall
from tests.vps.shell import Key, Shell

ROOT = Path(__file__).resolve().parent.parent.parent
ANSIBLE = ROOT / "ansible"
PROGRAMS = ROOT / ".cache" / "ansible" / "bin"
USER = "mcpfleet"
RUN_WITHIN_S = 900.0
TOLD_LINES = 25
_RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=\d+\s+changed=(?P<changed>\d+)", re.MULTILINE)


class PlaybookFailed(Exception):
    """One ended badly; with its last lines."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Of one fleet, with the key of its machines."""

    hall: Hall
    folder: Path
    key: Key
    say: Callable[[str], None]

    @property
    def environ(self) -> dict[str, str]:
        """What the commands and the inventory read."""
        return {"MCPFLEET_URL": self.hall.url, "MCPFLEET_TOKEN": self.hall.token}

    def enrol(self, name: str, pool: str) -> str:
        """`mcpfleet node enrol`: the one-time token."""
        said = mcpfleet(self.environ, "node", "enrol", name, "--pool", pool)
        assert said.returncode == 0, said.stderr
        return said.stdout.strip()

    def play(self, playbook: str, *words: str, given: Mapping[str, object] | None = None) -> int:
        """Run it; how many tasks changed something.

        Raises:
            PlaybookFailed: it did not end well.
        """
        begun_s = time.monotonic()
        variables = self.folder / "given.json"
        variables.touch(mode=0o600)
        variables.write_text(json.dumps(dict(given or {})))
        command = [str(PROGRAMS / "ansible-playbook"), str(ANSIBLE / playbook), *words, "-e", f"@{variables}"]
        done = subprocess.run(
            command, cwd=ANSIBLE, env=self._environ(), check=False, capture_output=True, text=True, timeout=RUN_WITHIN_S
        )
        with (self.folder / "playbooks.log").open("a") as log:
            log.write(f"$ {playbook} {' '.join(words)}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise PlaybookFailed(f"{playbook}:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-TOLD_LINES:]))
        changed = sum(int(found["changed"]) for found in _RECAP.finditer(done.stdout))
        self.say(f"{playbook} {' '.join(words)}: changed={changed}, {time.monotonic() - begun_s:.0f} s")
        return changed

    def shell(self, address: str) -> Shell:
        """On a machine."""
        return Shell(address, USER, self.key.path)

    def _environ(self) -> dict[str, str]:
        passed = {name: value for name, value in os.environ.items() if not name.startswith(("MCPFLEET_", "ANSIBLE_"))}
        ssh = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={self.folder / 'known_hosts'}"
        return passed | self.environ | {
            "PATH": f"{PROGRAMS}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "ANSIBLE_REMOTE_USER": USER,
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.key.path),
            "ANSIBLE_SSH_COMMON_ARGS": f"{ssh} -o ControlPersist=5s",
            "ANSIBLE_NOCOLOR": "1",
        }  # fmt: skip
