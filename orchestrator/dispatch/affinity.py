"""Which node holds which project: bindings that slide, survive restarts and never move on their own.

A binding ends when it was not used for its time to live, or when a call had to go elsewhere because
its node was no longer open. A spill past a node that lives leaves it as it is. Times are wall
clock, because the ledger keeps them. Refuses to choose a node: `route` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

SAVE_SHARE = 0.1
"""A binding that slid by less than this share of its time to live is not saved again: a busy
project costs ten writes per time to live, and a restart forgets at most a tenth too early."""

Bound = tuple[str, str, float]
"""Project, node, seconds since the epoch at which it ends: as `Ledger.bind_affinity` takes it."""


class Membership(Protocol):
    """What affinity needs of the fleet. `FleetView` satisfies it."""

    def is_open(self, node: str) -> bool:
        """Joined, active, with a good lease."""
        ...


@dataclass(slots=True)
class _Binding:
    node: str
    expires_at: float
    saved_until: float


class Affinity:
    """Project → node."""

    def __init__(self, bound: Iterable[Bound] = ()) -> None:
        self._bindings: dict[str, _Binding] = {}
        self._dirty: set[str] = set()
        self.recall(bound)

    def recall(self, bound: Iterable[Bound]) -> None:
        """Bindings as they were saved."""
        self._bindings |= {
            project: _Binding(node, expires_at, saved_until=expires_at) for project, node, expires_at in bound
        }

    def __len__(self) -> int:
        return len(self._bindings)

    def node_of(self, project: str | None, now_wall_s: float) -> str | None:
        """The warm node; None for a cold project and for calls without one."""
        if project is None:
            return None
        binding = self._bindings.get(project)
        if binding is None or binding.expires_at <= now_wall_s:
            return None
        return binding.node

    def placed(self, project: str, node: str, *, now_wall_s: float, ttl_s: float, fleet: Membership) -> None:
        """A call of the project was placed on, or claimed by, this node: bind it or slide its binding."""
        expires_at = now_wall_s + ttl_s
        binding = self._bindings.get(project)
        is_spill = binding is not None and binding.node != node and self._is_good(binding, now_wall_s, fleet)
        if is_spill:
            return
        if binding is None or binding.node != node:
            self._bindings[project] = _Binding(node, expires_at, saved_until=expires_at)
            self._dirty.add(project)
            return
        binding.expires_at = expires_at
        if expires_at - binding.saved_until > ttl_s * SAVE_SHARE:
            binding.saved_until = expires_at
            self._dirty.add(project)

    def dirty(self) -> list[Bound]:
        """Bindings to save, each handed out once; hand them to `unsaved` if the ledger refuses."""
        rows = [
            (project, found.node, found.expires_at) for project in self._dirty if (found := self._bindings.get(project))
        ]
        self._dirty.clear()
        return rows

    def unsaved(self, rows: Iterable[Bound]) -> None:
        """These could not be saved; `dirty` gives them again, as they then stand."""
        self._dirty.update(project for project, _, _ in rows)

    def projects_of(self, node: str, now_wall_s: float) -> list[str]:
        """What a node is warm for, by name."""
        held = self._bindings.items()
        return sorted(project for project, found in held if found.node == node and found.expires_at > now_wall_s)

    def sweep(self, now_wall_s: float) -> int:
        """Forget what ended; returns how many. To be called now and then: O(bindings)."""
        ended = [project for project, binding in self._bindings.items() if binding.expires_at <= now_wall_s]
        for project in ended:
            del self._bindings[project]
        return len(ended)

    @staticmethod
    def _is_good(binding: _Binding, now_wall_s: float, fleet: Membership) -> bool:
        return binding.expires_at > now_wall_s and fleet.is_open(binding.node)
