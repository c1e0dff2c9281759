"""What a machine carries, so that any orchestrator finds it again: the same words in every cloud."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.autoscaler.cloud.provider import Order

CLUSTER = "mcpfleet-cluster"
CLAIM = "mcpfleet-claim"
POOL = "mcpfleet-pool"
EXPIRES = "mcpfleet-expires"
"""Seconds since the epoch, whole."""


def tags_of(order: Order) -> dict[str, str]:
    """For the new machine."""
    return {CLUSTER: order.cluster, CLAIM: order.claim, POOL: order.pool, EXPIRES: f"{order.expires_at:.0f}"}


def expiry(tags: Mapping[str, str]) -> float:
    """Wall clock; 0 where the tag is missing or somebody wrote nonsense there."""
    text = tags.get(EXPIRES, "")
    return float(text) if text.isdecimal() else 0.0
