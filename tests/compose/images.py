"""Our own images, built by deploy/Dockerfile without a network: every wheel comes from an image that holds them.

`make wheelhouse` has most; what it lacks (our build backend, the MCP servers) is downloaded here and kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.compose.bases import CACHE, PYTHON, ROOT
from tests.compose.engine import Engine

WHEELHOUSE = ROOT / "dist" / "wheelhouse"
LOCKS = ("build", "demo-servers")
IMAGES = {"fleet": "mcpfleet:0.1.0", "node": "mcpfleet-node:0.1.0", "backup": "mcpfleet-backup:0.1.0"}
WHEELS = "mcpfleet-wheels"
DOWNLOAD_S = 900.0


def build(engine: Engine) -> dict[str, int]:
    """All of them; bytes of each by its name."""
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            # Both have the wheels that both locks name; an engine refuses a path that comes twice.
            for name, wheel in sorted(
                {one.name: one for at in (further(), WHEELHOUSE) for one in at.glob("*.whl")}.items()
            ):
                tar.add(wheel, f"wheels/{name}")
        packed.seek(0)
        engine.docker("import", "-", WHEELS, stdin=packed)
    arguments = [f"PYTHON={PYTHON}", f"WHEELS={WHEELS}", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels"]
    options = [word for argument in arguments for word in ("--build-arg", argument)]
    for target, image in IMAGES.items():
        words = ("build", "-q", "-f", str(ROOT / "deploy/Dockerfile"), "--target", target, "-t", image)
        engine.docker(*words, *options, str(ROOT))
    base = size(engine, f"python:{PYTHON}")
    return {image: size(engine, image) - base for image in IMAGES.values()}


def size(engine: Engine, image: str) -> int:
    """Bytes, with everything below it."""
    return int(engine.docker("image", "inspect", "-f", "{{.Size}}", image))


def further() -> Path:
    """Wheels that the wheelhouse lacks, by the hashes in their locks."""
    locks = [ROOT / "requirements" / f"{name}.txt" for name in LOCKS]
    stamp = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    kept = CACHE / f"wheels-{stamp}"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        draft = Path(folder) / "wheels"
        for lock in locks:
            _download(lock, draft, Path(folder) / lock.name)
        draft.rename(kept)
    return kept


def _download(lock: Path, into: Path, narrowed: Path) -> None:
    """For Debian 12's Python, whatever this process runs on: ansible/wheelhouse.sh says why uv has to ask first."""
    words = [str(ROOT / ".cache/uv/bin/uv"), "pip", "compile", "--no-deps", "--no-annotate", "--no-header", "--quiet"]
    words += ["--no-emit-index-url", "--generate-hashes", "--python-version", PYTHON.partition("-")[0]]
    words += ["--python-platform", "x86_64-unknown-linux-gnu", str(lock), "-o", str(narrowed)]
    _quietly(words)
    words = [str(ROOT / ".cache/uv/bin/python"), "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    words += ["--require-hashes", "--only-binary", ":all:", "--implementation", "cp"]
    words += ["--python-version", PYTHON.partition("-")[0], "--platform", "linux_x86_64", "-d", str(into)]
    for minor in range(36, 4, -1):
        words += ["--platform", f"manylinux_2_{minor}_x86_64"]
    _quietly([*words, "--platform", "manylinux2014_x86_64", "-r", str(narrowed)])


def _quietly(words: list[str]) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=DOWNLOAD_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])}: {done.stderr[-2000:]}")
