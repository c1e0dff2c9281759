"""The autoscaler's values as JSON text, as the ledger keeps them and the API shows them.

Owns the only way to and from bytes. Fields that a newer release added are passed by when an older
one reads, and have their defaults when it is the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.values import Decision, NodeClaim, Observation, Override
from tasks.errors import Permanent

Value = TypeVar("Value", Observation, Decision, History, NodeClaim, Override)


class UnreadableRecord(Permanent):
    """Stored text is not the value that it should be."""

    code = "unreadable_scale_record"
    http_status = 500

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(
            f"a stored {kind} cannot be read: {why}; it was written by another release or changed by hand: "
            "delete that row, and the next look at the pool writes it anew"
        )
        self.kind = kind


def dumps(value: Observation | Decision | History | NodeClaim | Override) -> str:
    """JSON text of one value."""
    text: bytes = _adapters()[type(value).__name__].dump_json(value)
    return text.decode()


def dumps_short(value: Observation | Decision) -> str:
    """The same without what is as by default: about a third less, and `loads` gives the same value."""
    text: bytes = _adapters()[type(value).__name__].dump_json(value, exclude_defaults=True)
    return text.decode()


def loads(kind: type[Value], text: str | bytes) -> Value:
    """The value that `dumps` wrote.

    Raises:
        UnreadableRecord: it is no JSON, or not of that kind.
    """
    try:
        value: Value = _adapters()[kind.__name__].validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableRecord(kind.__name__, f"{where}: {first['msg']}" if where else first["msg"]) from error
    return value


@cache
def _adapters() -> Mapping[str, TypeAdapter[Any]]:
    # Made on first use: it takes tens of milliseconds, and most commands need none.
    return {kind.__name__: TypeAdapter(kind) for kind in (Observation, Decision, History, NodeClaim, Override)}
