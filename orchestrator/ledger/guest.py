"""Whoever's call is to be placed, and a node, as placement and policies speak of them to each other."""

from __future__ import annotations

from typing import Protocol


class Place(Protocol):
    """A node, or one that could be made."""

    @property
    def node(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def capabilities(self) -> frozenset[str]: ...


class Guest(Protocol):
    """Whoever's call is to be placed, before policies. Compares and hashes by who it is: it is part of a shape."""

    def barred(self, place: Place) -> str | None:
        """Why it may not be placed there; None where it may. The same answer while the fleet's view stands."""
        ...
