"""Rendezvous hashing: the order in which nodes are a project's home. Pure and stable over restarts.

Refuses to know load: `spread.py` bounds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import log

_HASH_BYTES = 8
_HASH_SPAN = float(1 << (8 * _HASH_BYTES))
_BELOW_ONE = 1.0 - 2.0**-53


def rank(key: str, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Every node, best home first.

    A node that joins or leaves changes only the keys that it wins or held: 1 of n + 1 on average.

    Args:
        key: what wants a home, a project.
        weights: node to its share, above 0; twice the weight is home to twice the keys.

    Source: weighted rendezvous hashing, Schindelhauer and Schomaker 2005: -weight / ln(uniform).
    """
    keyed = blake2b(f"{key}\0".encode(), digest_size=_HASH_BYTES)
    hashes = {}
    for node in sorted(weights):
        hashed = keyed.copy()
        hashed.update(node.encode())
        hashes[node] = hashed.digest()
    if len(set(weights.values())) <= 1:
        return tuple(sorted(hashes, key=hashes.__getitem__, reverse=True))
    scores = {node: weights[node] / -log(_uniform(digest)) for node, digest in hashes.items()}
    return tuple(sorted(scores, key=scores.__getitem__, reverse=True))


def _uniform(digest: bytes) -> float:
    # Within 2**-53 of 1 it would be rounded to 1.0, whose logarithm is 0.
    return min((int.from_bytes(digest, "big") + 0.5) / _HASH_SPAN, _BELOW_ONE)
