"""How a session capsule begins, which both sides read: its first line names the call that it belongs to.

What follows is the node's own (`worker/sidecars/capsule.py`). Refuses to know it.
"""

from __future__ import annotations


def head_of(invocation_id: str) -> bytes:
    """The first line of every capsule of that call."""
    return f"mcpfleet-capsule 1 {invocation_id}\n".encode()
