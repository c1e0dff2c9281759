"""A remote to clone from, what people do in it, and a node's workspaces.

Real git, on this machine's disk. `git` here is the tests' own, as a person would run it: with a configuration
of its own, never that of the account that runs the tests.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tasks.testing.clock import FakeClock
from worker.workspaces.names import Project
from worker.workspaces.quota import WorkspaceLimits
from worker.workspaces.workspaces import Workspaces

LIMIT_BYTES = 1_000_000
_PERSON = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(folder: Path, *words: str, given: bytes | None = None) -> str:
    """What it says; a failure fails the test."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **_PERSON}
    done = subprocess.run(["git", *words], cwd=folder, env=environ, input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"git {words}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="surrogateescape").strip()


@dataclass(slots=True)
class Rig:
    """One remote, its author's own clone, and one node."""

    folder: Path
    limits: WorkspaceLimits = field(default_factory=lambda: WorkspaceLimits(fetch_s=20.0, look_every_s=0.05))
    clock: FakeClock = field(default_factory=FakeClock)

    @property
    def remote(self) -> Path:
        """A bare repository."""
        return self.folder / "remote.git"

    @property
    def seed(self) -> Path:
        """Where its author works."""
        return self.folder / "seed"

    @property
    def node(self) -> Path:
        """The node's folder."""
        return self.folder / "node"

    def files_of(self, run: str) -> Path:
        """Where the node puts a run's clone."""
        return self.node / "runs" / run / "work"

    @property
    def project(self) -> Project:
        """The project that the remote is of."""
        return self.project_named("shop")

    def project_named(self, name: str) -> Project:
        """Another project of the same remote."""
        return Project.of(name, str(self.remote))

    def begin(self) -> None:
        """A repository of three files on `main`."""
        self.remote.mkdir()
        self.seed.mkdir()
        git(self.remote, "init", "-q", "--bare", "-b", "main")
        git(self.seed, "init", "-q", "-b", "main")
        git(self.seed, "remote", "add", "origin", str(self.remote))
        self.commit({"readme.txt": b"hello\n", "src/shop.py": b"price = 1\n", "logo.bin": bytes(range(256))})

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Written, committed and pushed; the commit."""
        for name, data in files.items():
            (self.seed / name).parent.mkdir(parents=True, exist_ok=True)
            (self.seed / name).write_bytes(data)
        git(self.seed, "add", "-A")
        git(self.seed, "commit", "-q", "-m", "work")
        return self.publish(branch)

    def commit_submodule(self, files: dict[str, bytes], name: str) -> str:
        """The same, and a folder that is another repository."""
        for path, data in files.items():
            (self.seed / path).write_bytes(data)
        (self.seed / ".git/info").mkdir(exist_ok=True)
        (self.seed / ".git/info/attributes").write_text("* !working-tree-encoding\n")
        git(self.seed, "add", "-A")
        head = git(self.seed, "rev-parse", "HEAD")
        git(self.seed, "update-index", "--add", "--cacheinfo", f"160000,{head},{name}")
        git(self.seed, "commit", "-q", "-m", "with a submodule")
        return self.publish()

    def publish(self, branch: str = "main") -> str:
        """Push what the author has; the commit."""
        git(self.seed, "push", "-q", "origin", f"HEAD:refs/heads/{branch}")
        return git(self.seed, "rev-parse", "HEAD")

    def workspaces(self) -> Workspaces:
        """The node's."""
        return Workspaces(self.node, self.limits, self.clock)

    def applied(self, patch: bytes, base: str) -> Path:
        """A person's clone with the patch in it."""
        there = self.folder / "applied"
        git(self.folder, "clone", "-q", str(self.remote), str(there))
        git(there, "checkout", "-q", base)
        git(there, "apply", "--index", "-", given=patch)
        return there
