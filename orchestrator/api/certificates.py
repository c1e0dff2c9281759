"""Where a fleet makes no certificates: its doors are plain, or another authority makes them."""

from __future__ import annotations

from typing import NoReturn

from tasks.errors import WrongState


class NoCertificates:
    """Satisfies the port of the same name."""

    def enrolled(self, name: str, csr: str | None) -> None:  # noqa: ARG002 - a Certificates
        """None: the node joins without."""
        return

    async def renew(
        self,
        name: str,
        token: str,  # noqa: ARG002 - a Certificates
        csr: str,  # noqa: ARG002
        certificate: str | None,  # noqa: ARG002
    ) -> NoReturn:
        """Nobody has one.

        Raises:
            WrongState
        """
        raise WrongState(name, "in a fleet without certificates", "certified (MCPFLEET_TLS=true)")
