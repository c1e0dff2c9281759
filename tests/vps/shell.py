"""A shell on a machine, by OpenSSH's client. Machines come and go under the same address: keys are not remembered."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 60.0
CONNECT_S = 3


@dataclass(frozen=True, slots=True)
class Key:
    """Of one run."""

    path: Path
    public: str


def new_key(folder: Path) -> Key:
    """Made there."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True, timeout=ANSWER_S)
    return Key(path, path.with_suffix(".pub").read_text().strip())


@dataclass(frozen=True, slots=True)
class Shell:
    """One user on one machine."""

    address: str
    user: str
    key: Path

    def run(self, words: str, *, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """What it said.

        Raises:
            subprocess.CalledProcessError: it ended badly, and `is_checked`.
            subprocess.TimeoutExpired: no end after `ANSWER_S`.
        """
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_S,
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        command = ["ssh", "-i", str(self.key), *given, f"{self.user}@{self.address}", words]
        return subprocess.run(command, check=is_checked, capture_output=True, text=True, timeout=ANSWER_S)
