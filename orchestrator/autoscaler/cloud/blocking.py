"""A provider over a library that blocks: five questions, each asked in a thread and within one bound.

Owns the threads' way in and out. Refuses to know any vendor: a subclass asks, and translates what its library raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from orchestrator.autoscaler.cloud.provider import Machine, Notice, Order, Product
from orchestrator.autoscaler.cloud.threads import THREADS, VendorThreads


class BlockingProvider(ABC):
    """Satisfies `CloudProvider`."""

    def __init__(self, name: str, *, threads: int = THREADS) -> None:
        self._name = name
        self._threads = VendorThreads(name, threads=threads)

    async def create(self, order: Order) -> Machine:
        """The machine of this claim, made now or earlier."""
        async with self._threads.bounded():
            return await self._threads.run(lambda: self._create(order))

    async def machines(self, cluster: str) -> list[Machine]:
        """All of them or an error: a short list looks like machines that are gone."""
        async with self._threads.bounded():
            return await self._threads.run(lambda: self._listed(cluster))

    async def machine(self, machine_id: str) -> Machine | None:
        """By its id."""
        async with self._threads.bounded():
            return await self._threads.run(lambda: self._one(machine_id))

    async def terminate(self, machine_id: str) -> None:
        """End it, or see that it is gone."""
        async with self._threads.bounded():
            await self._threads.run(lambda: self._end(machine_id))

    async def catalog(self) -> list[Product]:
        """What can be ordered."""
        async with self._threads.bounded():
            return await self._threads.run(self._products)

    async def notices(self, cluster: str) -> list[Notice]:  # noqa: ARG002 - as every provider's
        """None, where nobody takes machines away."""
        return []

    async def close(self) -> None:
        """Machines stay."""
        self._threads.close()

    @abstractmethod
    def _create(self, order: Order) -> Machine: ...

    @abstractmethod
    def _listed(self, cluster: str) -> list[Machine]: ...

    @abstractmethod
    def _one(self, machine_id: str) -> Machine | None: ...

    @abstractmethod
    def _end(self, machine_id: str) -> None: ...

    @abstractmethod
    def _products(self) -> list[Product]: ...
