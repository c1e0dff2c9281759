"""Another release for the playbooks to bring: this tree under the next version, in a wheelhouse of its own.

The locked wheels are those of `make wheelhouse`; only ours is built anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("tasks", "orchestrator", "worker")
BESIDE = ("pyproject.toml", "README.md", "LICENSE")
BUILD_WITHIN_S = 300.0
_VERSION = re.compile(r'^version = "(?P<version>[\d.]+)"$', re.MULTILINE)


def next_release(tree: Path, wheelhouse: Path, folder: Path) -> Path:
    """A wheelhouse in `folder`, whose release has a version that is one higher, and its archive beside it."""
    source, made = folder / "source", folder / "wheelhouse"
    for name in PACKAGES:
        shutil.copytree(tree / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(tree / name, source / name)
    version = _raised(source / "pyproject.toml")
    shutil.copytree(wheelhouse, made, copy_function=os.link)
    next(made.glob("mcpfleet-*.whl")).unlink()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=BUILD_WITHIN_S)
    _noted(made, version)
    subprocess.run(["tar", "-C", made, "-cf", f"{made}.tar", "."], check=True, timeout=BUILD_WITHIN_S)
    return made


def release_of(wheelhouse: Path) -> str:
    """Its name, as machines have it."""
    return (wheelhouse / "RELEASE").read_text().strip()


def _raised(pyproject: Path) -> str:
    text = pyproject.read_text()
    found = _VERSION.search(text)
    assert found is not None
    *front, last = found["version"].split(".")
    version = ".".join([*front, str(int(last) + 1)])
    pyproject.write_text(text.replace(found[0], f'version = "{version}"'))
    return version


def _noted(made: Path, version: str) -> None:
    """As `ansible/wheelhouse.sh` does; what was linked is replaced, not written to."""
    wheel = next(made.glob("mcpfleet-*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = [line for line in (made / "requirements.txt").read_text().splitlines() if not line.startswith("mcpfleet==")]
    text = "\n".join([*lock, f"mcpfleet=={version} --hash=sha256:{digest}"]) + "\n"
    name = f"{version}-{hashlib.sha256(text.encode()).hexdigest()[:12]}\n"
    for path, content in ((made / "requirements.txt", text), (made / "RELEASE", name)):
        path.unlink()
        path.write_text(content)
