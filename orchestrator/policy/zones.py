"""How much a connection is trusted, from facts that this machine verified itself. Pure.

Never from what a caller says of itself: not a header, not a name, not a role. Source: the three zones of the
product's brief, 0.9 local machine, 0.7 trusted network, 0.5 outside, in hundredths because Cedar has whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from orchestrator.presented import Presented
from tasks.invocation import TRUST_LEAST

LOCAL, NETWORK, OUTSIDE = 90, 70, TRUST_LEAST


@dataclass(frozen=True, slots=True)
class Zones:
    """Which addresses are trusted more than outside.

    Attributes:
        networks: a peer from there is `NETWORK`.
        is_loopback_local: a peer on loopback is `LOCAL`. Not where a reverse proxy runs on this machine: then
            everybody comes from there.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    is_loopback_local: bool = True

    def trust(self, presented: Presented) -> int:
        """Of whoever sent this."""
        try:
            address = ip_address(presented.peer or "")
        except ValueError:
            return OUTSIDE
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_loopback:
            return LOCAL if self.is_loopback_local else OUTSIDE
        return NETWORK if any(address in network for network in self.networks) else OUTSIDE
