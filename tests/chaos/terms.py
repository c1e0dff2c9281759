"""For how long nodes and leaders may be silent, in a fleet under test; faults that name seconds keep in step."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_LEASE_S = 7.0


@dataclass(frozen=True, slots=True)
class Terms:
    """The orchestrator's settings of these names; here its defaults."""

    lease_ttl_s: float = DEFAULT_LEASE_S
    renew_every_s: float = 2.0
    grace_tools_s: float = 10.0
    leader_ttl_s: float = 6.0

    @property
    def pace(self) -> float:
        """1 with the default lease; faults that outlast a lease, or must not, are scaled by it."""
        return self.lease_ttl_s / DEFAULT_LEASE_S

    @property
    def linger_s(self) -> float:
        """What a fault leads to is over so long after it: the lease lapses, then the grace."""
        return self.lease_ttl_s + self.grace_tools_s

    @property
    def environ(self) -> dict[str, str]:
        """For an orchestrator."""
        return {
            "MCPFLEET_LEASE_TTL_S": str(self.lease_ttl_s),
            "MCPFLEET_RENEW_EVERY_S": str(self.renew_every_s),
            "MCPFLEET_GRACE_TOOLS_S": str(self.grace_tools_s),
            "MCPFLEET_LEADER_TTL_S": str(self.leader_ttl_s),
        }


SHORT = Terms(lease_ttl_s=3.0, renew_every_s=0.8, grace_tools_s=4.0, leader_ttl_s=2.5)
"""Leases lapse within a run of seconds, and yet not because a loaded machine is slow for a moment."""
