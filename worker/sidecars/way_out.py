"""How a program in a sandbox is led out: the words that start `inside.py` before it, and what it is told. Pure.

There are two ways, each a unix socket of the node that is bound into the sandbox: to the model (`egress.py`), and,
where the run's project lists destinations, to those (`reach.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from worker.workspaces import sandbox

INSIDE = "/opt/inside.py"
SCRIPT: Mapping[Path, str] = {Path(__file__).with_name("inside.py"): INSIDE}
"""To be shown, read-only."""
PROXIES = "HTTPS_PROXY,https_proxy,HTTP_PROXY,http_proxy,ALL_PROXY,all_proxy"
"""Both cases: curl reads `http_proxy` in lower case only, others the other one."""
_OWN = "localhost,127.0.0.1,::1"
"""The run's own loopback, where its model is."""
_BESIDE = {"NO_PROXY": _OWN, "no_proxy": _OWN, "NODE_USE_ENV_PROXY": "1"}
"""Node.js from 22.21 reads the variables only where that last one says so."""


def led(interpreter: str, program: tuple[str, ...], *, model: str | None, reach: Path | None) -> tuple[str, ...]:
    """The program's words with the ways out before them. `model`: the variable that gets the model's address."""
    ways: tuple[str, ...] = () if model is None else (sandbox.EGRESS, model)
    if reach is not None:
        ways += (sandbox.REACH, PROXIES)
    return (interpreter, "-I", "-S", INSIDE, *ways, "--", *program)


def environ(reach: Path | None) -> Mapping[str, str]:
    """What the program is told beside the ports."""
    return {} if reach is None else _BESIDE
