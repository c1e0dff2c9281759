"""What tests of local machines stand on: whether this host can boot any, a tiny image, and what is left of them.

The tiny image is one static busybox: its init answers HTTP with the machine's name, and powers off when asked
to. What needs systemd, cloud-init or ssh uses the image of `make vps-image`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from orchestrator.autoscaler.cloud.local_vps import MOUNTS, LocalVps, open_local_vps
from orchestrator.autoscaler.cloud.nspawn.cgroups import FAMILY, mounted
from orchestrator.autoscaler.cloud.nspawn.host import PROPAGATE, lacks
from orchestrator.autoscaler.cloud.nspawn.network import BRIDGE, CABLE, SPACE, SPACES
from orchestrator.autoscaler.cloud.provider import ProviderConfig

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / ".cache" / "vps"
ANSWER_S = 20.0
BUSYBOX = "/bin/busybox"
INIT = f"""#!{BUSYBOX} sh
# SIGRTMIN+3 is how systemd-nspawn asks an init to power off.
trap 'exit 0' 37
{BUSYBOX} mkdir -p /www/cgi-bin
{BUSYBOX} hostname >/www/index.html
printf '#!{BUSYBOX} sh\\n{BUSYBOX} kill -37 1\\n' >/www/cgi-bin/poweroff
{BUSYBOX} chmod 755 /www/cgi-bin/poweroff
{BUSYBOX} httpd -p 80 -h /www
while :; do {BUSYBOX} sleep 1 & wait $!; done
"""


def has_busybox() -> bool:
    """One that needs no library: what the tiny image is made of."""
    found = shutil.which("busybox")
    if found is None:
        return False
    told = subprocess.run(["ldd", found], check=False, capture_output=True, text=True, timeout=ANSWER_S)
    return "not a dynamic executable" in told.stdout + told.stderr


def tiny_image(folder: Path) -> Path:
    """A root file system of a megabyte."""
    for name in ("bin", "sbin", "etc", "usr", "var", "proc", "sys", "dev", "run", "tmp", "root"):
        (folder / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), folder / "bin" / "busybox")
    (folder / "etc" / "os-release").write_text("ID=tiny\n")
    init = folder / "sbin" / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    return folder


@cache
def why_not() -> str | None:
    """What this host lacks for booting machines, in one sentence; tries the rights, not only the programs."""
    lack = lacks()
    if lack is not None:
        return lack
    if not mounted(MOUNTS.read_text()):
        return "machines on this host need control groups: none are mounted here"
    with tempfile.TemporaryDirectory(prefix="mcpfleet-vps-") as folder:
        script = "mkdir l u w r && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w r"
        words = ["unshare", "--mount", "--net", "--pid", "--fork", "--propagation", "private", "sh", "-euc", script]
        tried = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True, timeout=ANSWER_S)
    return f"machines on this host need namespaces and overlays: {tried.stderr.strip()}" if tried.returncode else None


def provider(state_dir: Path, image: Path, **options: object) -> LocalVps:
    """The real one, on this folder."""
    table = {"image": str(image), "stop_s": 5.0} | options
    return open_local_vps(ProviderConfig("here", "local-vps", table, state_dir))


def left_of(state_dir: Path) -> dict[str, list[str]]:
    """Everything in the kernel and on the disk that is of a machine of this folder."""
    owner = (state_dir / "owner").read_text() if (state_dir / "owner").exists() else "no machine was ever made"
    links = json.loads(subprocess.check_output(["ip", "-json", "link", "show"], timeout=ANSWER_S))
    families = [hierarchy.root / FAMILY for hierarchy in mounted(MOUNTS.read_text())]
    found = {
        "processes": _processes(str(state_dir)),
        "namespaces": [str(entry) for entry in SPACES.glob(f"{SPACE}{owner}*")],
        "cables": [each["ifname"] for each in links if each["ifname"].startswith((CABLE + owner, BRIDGE + owner))],
        "control groups": [str(entry) for family in families for entry in family.glob(f"{owner}*")],
        "mounts": [line for line in _mounts() if str(state_dir) in line],
        "folders": [str(entry) for entry in (state_dir / "machines").glob("*")],
        "of nspawn": [str(entry) for entry in PROPAGATE.glob(f"{owner}*")],
    }
    return {what: those for what, those in found.items() if those}


def _processes(words: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line and int(folder.name) != os.getpid():
            found.append(f"{folder.name} {line}")
    return found


def _mounts() -> list[str]:
    """Of every process: a mount namespace lives as long as its last one."""
    lines: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            lines.update(path.read_text().splitlines())
        except OSError:
            continue
    return sorted(lines)
