"""What a Celery message carries: one delivery, addressed, fenced and authenticated.

The body is JSON text; the MAC covers every byte of it. Refuses to encrypt (`sealing.py` does) and to
judge leases: `worker/execute.py` does.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.errors import BadDelivery
from tasks.invocation import Lane
from tasks.node import WIRE_VERSION

Number = tuple[int, int]
"""(leader's epoch, count within it): grows from one delivery to the next, also over a change of leader."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt on its way to a node. `arguments_json` and `meta_json` are carried as text."""

    invocation: str
    fence: int
    node: str | None
    """None: any node of the pool, which must claim it first."""
    incarnation: str | None
    term: int
    tool: str
    lane: Lane
    timeout_s: float
    arguments_json: str | None = None
    arguments_blob: str | None = None
    project: str | None = None
    expires_at: float | None = None
    trace_id: str | None = None
    meta_json: str | None = None
    tries: int = 0
    tenant: str = "default"
    capsule: str | None = None
    """Digest of what an earlier attempt saved of its session: this one goes on from there."""
    spent_usd: float | None = None
    """What earlier attempts have cost, as far as anybody knows a price; with `capsule`."""
    handover_s: float | None = None
    """Once its node's lease is over for so long, another one goes on from its capsule; None: none does."""
    number: Number | None = None
    """By it a node knows an old one that it no longer remembers. None: sealed by an orchestrator that gave none."""
    caller: str = ""
    """Id of the principal that called; a grant is good for one only. Empty from an orchestrator that does not say."""
    is_sampled: bool | None = None
    """Whether spans of its trace are kept; None: nobody has decided."""


def seal(delivery: Delivery, key: bytes) -> tuple[str, str]:
    """The two task arguments of a plain delivery: body text and its MAC in hex.

    Source: RFC 2104, HMAC-SHA256.
    """
    body = encode(delivery)
    return body.decode(), _mac(body, key)


def encode(delivery: Delivery) -> bytes:
    """The body."""
    arguments = delivery.arguments_json
    return orjson.dumps(
        {
            "v": WIRE_VERSION,
            "inv": delivery.invocation,
            "fence": delivery.fence,
            "node": delivery.node,
            "inc": delivery.incarnation,
            "term": delivery.term,
            "tool": delivery.tool,
            "lane": delivery.lane,
            "timeout_s": delivery.timeout_s,
            "args": None if arguments is None else orjson.Fragment(arguments),
            "args_blob": delivery.arguments_blob,
            "project": delivery.project,
            "expires_at": delivery.expires_at,
            "trace": delivery.trace_id,
            "meta": None if delivery.meta_json is None else orjson.Fragment(delivery.meta_json),
            "tries": delivery.tries,
            "tenant": delivery.tenant,
            "capsule": delivery.capsule,
            "spent_usd": delivery.spent_usd,
            "handover_s": delivery.handover_s,
            "number": delivery.number,
            "caller": delivery.caller,
            "sampled": delivery.is_sampled,
        }
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """A delivery that was authenticated, with its arguments parsed."""

    delivery: Delivery
    arguments: dict[str, object] | None
    meta: dict[str, object] | None


def open_sealed(body: str, mac: str, key: bytes) -> Opened:
    """Authenticate, then parse. Nothing is read from a body whose MAC is wrong.

    Raises:
        BadDelivery: `mac`, `version` or `form`.
    """
    # Whoever can write to Redis chooses both strings: surrogates and non-ASCII letters must not raise elsewhere.
    raw = body.encode(errors="surrogatepass")
    if not hmac.compare_digest(_mac(raw, key).encode(), mac.encode(errors="surrogatepass")):
        raise BadDelivery("mac")
    return parse(raw)


def parse(body: bytes) -> Opened:
    """A body that was authenticated.

    Raises:
        BadDelivery: `version` or `form`.
    """
    form = read_object(body)
    if form.get("v") != WIRE_VERSION:
        raise BadDelivery("version")
    try:
        return Opened(
            delivery=Delivery(
                invocation=form["inv"],
                fence=form["fence"],
                node=form["node"],
                incarnation=form["inc"],
                term=form["term"],
                tool=form["tool"],
                lane=Lane(form["lane"]),
                timeout_s=form["timeout_s"],
                arguments_blob=form["args_blob"],
                project=form["project"],
                expires_at=form["expires_at"],
                trace_id=form["trace"],
                tries=form["tries"],
                tenant=form["tenant"],
                capsule=form.get("capsule"),
                spent_usd=form.get("spent_usd"),
                handover_s=form.get("handover_s"),
                number=_number(form.get("number")),
                caller=str(form.get("caller") or ""),
                is_sampled=None if form.get("sampled") is None else bool(form["sampled"]),
            ),
            arguments=form["args"],
            meta=form["meta"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadDelivery("form") from error


def read_object(text: bytes) -> dict[str, Any]:
    """A JSON object that was authenticated: an orchestrator that errs must not end in another error than the refusal.

    Raises:
        BadDelivery: `form`.
    """
    try:
        form = orjson.loads(text)
    except ValueError as error:
        raise BadDelivery("form") from error
    if not isinstance(form, dict):
        raise BadDelivery("form")
    return form


def _number(said: list[int] | None) -> Number | None:
    if said is None:
        return None
    epoch, count = said
    return int(epoch), int(count)


def _mac(body: bytes, key: bytes) -> str:
    return hmac.digest(key, body, hashlib.sha256).hex()
