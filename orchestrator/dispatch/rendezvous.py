"""Rendezvous hashing: the order in which nodes are a project's home. Pure and stable over restarts.

Refuses to know load: `spread.py` bounds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import log

_HASH_BYTES = 8
_HASH_SPAN = float(1 << (8 * _HASH_BYTES))


def rank(key: str, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Every node, best home first.

    A node that joins or leaves changes only the keys that it wins or held: 1 of n + 1 on average.

    Args:
        key: what wants a home, a project.
        weights: node to its share, above 0; twice the weight is home to twice the keys.

    Source: weighted rendezvous hashing, Schindelhauer and Schomaker 2005: -weight / ln(uniform).
    """
    return tuple(sorted(weights, key=lambda node: (-_score(key, node, weights[node]), node)))


def _score(key: str, node: str, weight: float) -> float:
    digest = blake2b(f"{key}\0{node}".encode(), digest_size=_HASH_BYTES).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / _HASH_SPAN
    # Hashes within 2**-53 of the end round to 1.0, whose logarithm is 0.
    return weight / -log(min(uniform, 1.0 - 2.0**-53))
