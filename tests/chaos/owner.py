"""Names for what outlives a process: they say whose it is, so that a later run can clear up after a killed one."""

from __future__ import annotations

import os
import re

from orchestrator.local.guard import birth

PREFIX = "mcpfleet-chaos"
_FORM = re.compile(rf"{PREFIX}-(?P<pid>\d+)-(?P<birth>\d+)-")


def owned(name: str) -> str:
    """A name that carries this process: its number, and when it was started."""
    return f"{PREFIX}-{os.getpid()}-{birth(os.getpid())}-{name}"


def is_orphan(name: str) -> bool:
    """Whether the name is one of ours and its process is gone."""
    found = _FORM.match(name)
    return found is not None and birth(int(found["pid"])) != found["birth"]
