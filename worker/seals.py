"""What this node seals and opens: its keys, as the fleet told them last.

Refuses, and counts, control entries that are plain where sealing is demanded, or that are not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from tasks.ledger_events import FIELD
from tasks.node import SealTerms
from tasks.sealing import SEALED_FIELD, Box, NotSealedForUs, Opener, control_box, events_box, terms_id

_log = structlog.get_logger()


class Seals:
    """One incarnation's. Without terms everything is plain: the orchestrator is of before ADR 0020."""

    def __init__(self, *, node: str, pool: str, wall_s: Callable[[], float], refused: Callable[[str], None]) -> None:
        self.id = ""
        """Names the terms we have, without telling them."""
        self.deliveries: Opener | None = None
        self._node, self._pool, self._wall_s, self._refused = node, pool, wall_s, refused
        self._events: Box | None = None
        self._control: Box | None = None
        self._is_demanded = False

    def take(self, terms: SealTerms | None) -> None:
        """From the join, or from a renewal where they changed. Both came over HTTP, not through the broker."""
        if terms is None:
            return
        key = bytes.fromhex(terms.key)
        self.id, self._is_demanded = terms_id(terms), terms.is_demanded
        self.deliveries = Opener(terms, node=self._node, pool=self._pool, wall_s=self._wall_s)
        self._events, self._control = events_box(key, self._node), control_box(key, self._node)

    def event(self, value: bytes) -> tuple[bytes, bytes]:
        """Field and value of an entry of our stream."""
        if self._events is None or not self._is_demanded:
            return FIELD, value
        return SEALED_FIELD, self._events.seal(value)

    def control(self, fields: Mapping[bytes, bytes]) -> bytes | None:
        """What an entry of the control stream says; None where it is not to be believed."""
        sealed = fields.get(SEALED_FIELD)
        try:
            if sealed is not None and self._control is not None:
                return self._control.open(sealed)
        except NotSealedForUs:
            pass
        else:
            if sealed is None and not self._is_demanded:
                return fields.get(FIELD, b"")
        self._refused("control")
        _log.warning("control_refused", is_sealed=sealed is not None)
        return None
