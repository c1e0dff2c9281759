"""Healthy or not, with hysteresis: three bad checks in a row say no, two good ones in a row say yes again. Pure.

One bad check is bad luck, and one good one between two bad ones proves little: without both counts a
server on the edge would be passed by and used again with every check. Used by nodes for their MCP
servers and their own consumer, and by the orchestrator for nodes that come back. Refuses to know what
a check is, and when the next one is due.
"""

from __future__ import annotations

from dataclasses import dataclass

BAD_IN_A_ROW = 3
GOOD_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict, and the checks in a row since it last could have changed. At most one of the two counts is not 0."""

    is_healthy: bool = True
    bad: int = 0
    good: int = 0

    def after(self, *, is_good: bool) -> Health:
        """The verdict once one more check has ended."""
        if is_good:
            good = self.good + 1
            return Health(self.is_healthy or good >= GOOD_IN_A_ROW, good=min(good, GOOD_IN_A_ROW))
        bad = self.bad + 1
        return Health(self.is_healthy and bad < BAD_IN_A_ROW, bad=min(bad, BAD_IN_A_ROW))

    @property
    def missing(self) -> int:
        """Good checks in a row that it still needs to be healthy; 0 when it is."""
        return 0 if self.is_healthy else GOOD_IN_A_ROW - self.good


HEALTHY = Health()
UNHEALTHY = Health(is_healthy=False)
