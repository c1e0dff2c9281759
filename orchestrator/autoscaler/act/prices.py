"""What machines cost, as their providers say, remembered between askings. Never asks while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from orchestrator.autoscaler.cloud.provider import CloudProvider, Product
from orchestrator.autoscaler.values import Rung
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.autoscaler")
FRESH_S = 6 * 3600.0
AGAIN_S = 60.0
"""After a catalogue that did not come."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of one machine. `eur_h` None: nobody knows. `billing_s`: paid at least, and in steps of."""

    eur_h: float | None = None
    billing_s: float = 1.0


class Prices:
    """The catalogues."""

    def __init__(self, *, clouds: Mapping[str, CloudProvider], clock: Clock) -> None:
        self._clouds, self._clock = clouds, clock
        self._products: dict[str, list[Product]] = {}
        self._due_at_s: dict[str, float] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def of(self, rung: Rung) -> Price:
        """As its provider says, else as the pools file does. A type that has one price everywhere has it here."""
        products = self._products.get(rung.provider, [])
        same = [p for p in products if p.type == rung.type and p.is_spot is rung.is_spot]
        here = [p for p in same if p.region == rung.region] or [p for p in same if not p.region]
        if not here:
            return Price(rung.price_eur_h)
        product = here[0]
        return Price(rung.price_eur_h if product.price_eur_h is None else product.price_eur_h, product.billing_s)

    def refresh(self) -> None:
        """Ask those whose answer is old."""
        now_s = self._clock.mono_s()
        for provider, cloud in self._clouds.items():
            if now_s >= self._due_at_s.get(provider, float("-inf")):
                self._due_at_s[provider] = now_s + FRESH_S
                task = asyncio.create_task(self._ask(provider, cloud), name=f"catalogue of {provider}")
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    def under_way(self) -> list[asyncio.Task[None]]:
        """Catalogues that were asked for and have not come."""
        return list(self._under_way)

    async def _ask(self, provider: str, cloud: CloudProvider) -> None:
        try:
            self._products[provider] = await cloud.catalog()
        except FleetError as error:
            self._due_at_s[provider] = self._clock.mono_s() + AGAIN_S
            log.warning("catalogue_unavailable", provider=provider, error=error.message)
        except Exception:
            self._due_at_s[provider] = self._clock.mono_s() + AGAIN_S
            log.exception("catalogue_failed", provider=provider)
