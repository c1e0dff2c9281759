"""Junk for the two ends that read what others wrote: the MCP door, and a node that takes from the broker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from typing import Any

import httpx
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from orchestrator.front.app import McpFront
from orchestrator.identity.doors import Authenticators
from orchestrator.testing.doors import FakeTokens
from orchestrator.testing.front import SETTINGS, Toolbox, legacy_headers, modern
from orchestrator.testing.inprocess_fleet import InProcessFleet
from tasks.envelope import Delivery, open_sealed, seal
from tasks.errors import BadDelivery
from tasks.invocation import Lane
from tasks.node import SealTerms
from tasks.sealing import NODE_MARK, POOL_MARK, Box, Opener, node_box, pool_box, public_hex, seal_delivery, signer_of

WITHIN_S = 60.0
KEY, POOL_KEY, SECRET = os.urandom(32), os.urandom(32), os.urandom(32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
METHODS = (
    "initialize", "ping", "tools/list", "tools/call", "tasks/get", "tasks/update", "tasks/cancel", "server/discover",
    "subscriptions/listen", "completion/complete", "notifications/initialized", "notifications/cancelled", "",
)  # fmt: skip
WORDS = ("name", "arguments", "taskId", "inputResponses", "_meta", "cursor", "requestState", "task", "protocolVersion")
NAMES = st.sampled_from(["t.echo", "t.fail", "fleet.submit", "fleet.get", "fleet.why", "x" * 300]) | JSON
SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers() | st.text(max_size=8) | JSON,
        "method": st.sampled_from(METHODS) | JSON,
        "params": st.dictionaries(st.sampled_from(WORDS), NAMES, max_size=4) | JSON,
        "result": JSON,
    },
)
ODD = st.text(st.characters(codec=None), max_size=60)
"""Surrogates, too: whoever writes to Redis chooses the text."""


async def posted(bodies: list[tuple[bytes, dict[str, str]]]) -> list[httpx.Response]:
    """What the MCP door answers; a front of its own each time, since its tasks end where they began."""
    tools = Toolbox()
    front = McpFront(InProcessFleet(tools.specs(), tools.run), Authenticators([FakeTokens()]), SETTINGS)
    transport = httpx.ASGITransport(Starlette(routes=front.routes()), raise_app_exceptions=False)
    async with front.running(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as http:
        async with asyncio.timeout(WITHIN_S):
            return [await http.post("/mcp", content=body, headers=headers) for body, headers in bodies]


def is_live(body: Any) -> bool:
    """A request that is answered for as long as somebody listens."""
    return isinstance(body, dict) and body.get("method") == "subscriptions/listen"


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.binary(max_size=120) | (SHAPES | JSON).filter(lambda one: not is_live(one)), max_size=4))
def test_any_message_at_the_mcp_door_is_answered(bodies: list[Any]) -> None:
    """In both eras: never a 5xx, and it answers the next one."""
    sent = [(one if isinstance(one, bytes) else json.dumps(one).encode(), legacy_headers()) for one in bodies]
    good, headers = modern("tools/call", {"name": "t.echo", "arguments": {"a": 1}})
    sent += [(body, headers) for body, _ in sent]
    answers = asyncio.run(posted([*sent, (orjson.dumps(good), headers)]))
    assert not [one for one in answers if one.status_code >= 500]
    assert answers[-1].json()["result"]["structuredContent"] == {"a": 1}


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.sampled_from(METHODS).filter(lambda one: one != "subscriptions/listen"),
    st.dictionaries(st.sampled_from(WORDS[:4] + WORDS[5:]), NAMES, max_size=4),
)
def test_any_params_of_a_known_method_are_answered(method: str, params: dict[str, Any]) -> None:
    """Headers fit, so that what is asked is read to its end."""
    body, headers = modern(method, params)
    fit = {key: value for key, value in headers.items() if str(value).isascii()}
    (answer,) = asyncio.run(posted([(json.dumps(body).encode(), {key: str(value) for key, value in fit.items()})]))
    assert answer.status_code < 500


def opener() -> Opener:
    """A node's end."""
    terms = SealTerms(key=KEY.hex(), pool_key=POOL_KEY.hex(), signer=public_hex(signer_of(SECRET)), is_demanded=True)
    return Opener(terms, node="a1", pool="east", wall_s=lambda: 100.0)


def refused(body: str, mac: str) -> None:
    """Opened, or BadDelivery: nothing else may come out."""
    with contextlib.suppress(BadDelivery):
        opener().open(body, mac)
    with contextlib.suppress(BadDelivery):
        open_sealed(body, mac, KEY)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(ODD, st.sampled_from(["", NODE_MARK, POOL_MARK]), ODD)
def test_any_two_texts_from_the_broker_are_a_delivery_or_refused(body: str, mark: str, mac: str) -> None:
    """No text raises anything but the refusal."""
    refused(body, mark + mac)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.data())
def test_a_changed_delivery_is_refused(data: st.DataObject) -> None:
    """Cut, or with other characters in it, in either text: never another delivery."""
    delivery = Delivery("i-1", 1, "a1", "a1/1", 1, "t.echo", Lane.TOOLS, 5.0, arguments_json="{}")
    texts = list(seal_delivery(delivery, node_box(KEY, "a1"), 100.0))
    whole = opener().open(*texts)
    which = data.draw(st.integers(0, 1))
    text = texts[which]
    start, stop = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    texts[which] = text[:start] + data.draw(ODD) + text[stop:]
    try:
        opened = opener().open(*texts)
    except BadDelivery:
        return
    assert opened == whole  # nothing was changed, or bits of base64's last character that mean nothing


@settings(max_examples=100, derandomize=True, deadline=None)
@given(JSON | st.binary(max_size=60), JSON, st.booleans())
def test_whatever_was_sealed_rightly_is_a_delivery_or_refused(plain: Any, header: Any, is_late: bool) -> None:
    """An orchestrator of another version, or one that errs, does not end a node."""
    inner = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    head = json.dumps(header).encode()
    box: Box = pool_box(POOL_KEY, "east") if is_late else node_box(KEY, "a1")
    sealed = box.seal(inner, head)
    mark, signature = (POOL_MARK, bytes(64)) if is_late else (NODE_MARK, b"")
    refused(head.decode(), mark + base64.b64encode(signature + sealed).decode())
    delivery = Delivery("i-1", 1, "a1", "a1/1", 1, "t.echo", Lane.TOOLS, 5.0)
    assert open_sealed(*seal(delivery, KEY), KEY).delivery == delivery
