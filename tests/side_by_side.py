"""Which tests stay together when files run side by side (`make test`).

Owns the one exception: files of `tests/flow` that share a fleet share a process too, so that there is one.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

ON_ONE_FLEET = ("tests/flow/test_cli.py", "tests/flow/test_door_")


class ByFleet(LoadFileScheduling):
    """By file, and those with one fleet as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/flow: one fleet" if nodeid.startswith(ON_ONE_FLEET) else str(super()._split_scope(nodeid))
