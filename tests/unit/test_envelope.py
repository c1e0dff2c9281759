"""Deliveries: what is sealed comes out whole, and nothing that was touched is opened."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.envelope import Delivery, open_sealed, seal
from tasks.errors import BadDelivery
from tasks.invocation import Lane
from tasks.node import WIRE_VERSION

KEY = b"k" * 32
DELIVERY = Delivery(
    invocation="0198f3c2-0000-7000-8000-000000000001",
    fence=3,
    node="a1",
    incarnation="inc-1",
    term=7,
    tool="git.git_log",
    lane=Lane.TOOLS,
    timeout_s=300.0,
    arguments_json='{"repo":"/srv/shop","n":10}',
    project="shop",
    expires_at=1_800_000_000.5,
    trace_id="0" * 32,
    meta_json='{"_meta":{"progressToken":1}}',
    tries=1,
)

texts = st.text(st.characters(codec="utf-8"), max_size=8)
json_objects = st.dictionaries(
    texts,
    st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts), st.lists, max_leaves=5),
)
deliveries = st.builds(
    Delivery,
    invocation=texts,
    fence=st.integers(0, 2**31),
    node=st.one_of(st.none(), texts),
    incarnation=st.one_of(st.none(), texts),
    term=st.integers(0, 2**31),
    tool=texts,
    lane=st.sampled_from(list(Lane)),
    timeout_s=st.floats(0.001, 1e6),
    arguments_json=st.one_of(st.none(), json_objects.map(json.dumps)),
    arguments_blob=st.one_of(st.none(), texts),
    project=st.one_of(st.none(), texts),
    expires_at=st.one_of(st.none(), st.floats(0, 4e9)),
    trace_id=st.one_of(st.none(), texts),
    meta_json=st.one_of(st.none(), json_objects.map(json.dumps)),
    tries=st.integers(0, 100),
    tenant=texts,
    capsule=st.one_of(st.none(), texts),
    number=st.one_of(st.none(), st.tuples(st.integers(0, 2**31), st.integers(0, 2**53))),
)


@settings(max_examples=50)
@given(deliveries, st.binary(min_size=1, max_size=64))
def test_what_is_sealed_comes_out_whole(delivery: Delivery, key: bytes) -> None:
    """Every field, for any content and any key."""
    opened = open_sealed(*seal(delivery, key), key)
    for name in Delivery.__slots__:
        if name not in {"arguments_json", "meta_json"}:
            assert getattr(opened.delivery, name) == getattr(delivery, name), name
    assert opened.arguments == (None if delivery.arguments_json is None else json.loads(delivery.arguments_json))
    assert opened.meta == (None if delivery.meta_json is None else json.loads(delivery.meta_json))


def test_every_one_character_change_of_the_body_is_refused() -> None:
    """Each position, replaced, left out and doubled."""
    body, mac = seal(DELIVERY, KEY)
    for at, letter in enumerate(body):
        other = "x" if letter != "x" else "y"
        for touched in (body[:at] + other + body[at + 1 :], body[:at] + body[at + 1 :], body[: at + 1] + body[at:]):
            if touched != body:
                assert refused(touched, mac) == "mac"


def test_every_one_character_change_of_the_mac_is_refused() -> None:
    """Each position; upper case too: there is one spelling."""
    body, mac = seal(DELIVERY, KEY)
    for at, letter in enumerate(mac):
        assert refused(body, mac[:at] + ("0" if letter != "0" else "1") + mac[at + 1 :]) == "mac"
    for wrong in (mac.upper(), mac[:-1], mac + "0", ""):
        assert refused(body, wrong) == "mac"


@pytest.mark.parametrize("letter", ["é", "\ud800", "\0", "💥"])
def test_text_that_no_orchestrator_writes_is_refused_like_any_other(letter: str) -> None:
    """Lone surrogates and non-ASCII letters, in either string, are a wrong MAC and not a crash."""
    body, mac = seal(DELIVERY, KEY)
    assert refused(body + letter, mac) == "mac"
    assert refused(body, mac[:-1] + letter) == "mac"


@given(st.integers(0, 10_000), st.characters())
def test_any_character_anywhere_in_the_body_is_refused(at: int, letter: str) -> None:
    """Whatever it is replaced with."""
    body, mac = seal(DELIVERY, KEY)
    at %= len(body)
    touched = body[:at] + letter + body[at + 1 :]
    if touched != body:
        assert refused(touched, mac) == "mac"


@pytest.mark.parametrize("key", [b"k" * 31, b"K" * 32, b""], ids=["shorter", "other", "none"])
def test_key_of_another_node_opens_nothing(key: bytes) -> None:
    """A delivery is for the node whose incarnation holds the key."""
    body, mac = seal(DELIVERY, KEY)
    with pytest.raises(BadDelivery, match="mac"):
        open_sealed(body, mac, key)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"v": WIRE_VERSION + 1}, "version", id="newer version"),
        pytest.param({"v": ...}, "version", id="no version"),
        pytest.param({"lane": "fast"}, "form", id="unknown lane"),
        pytest.param({"fence": ...}, "form", id="field left out"),
    ],
)
def test_authentic_delivery_that_is_not_ours_to_read_is_refused(change: dict[str, object], why: str) -> None:
    """The key is right, the content is of another time."""
    form = {**json.loads(seal(DELIVERY, KEY)[0]), **change}
    body = json.dumps({name: value for name, value in form.items() if value is not ...})
    assert refused(body, mac_of(body)) == why


def refused(body: str, mac: str) -> str:
    """Why it was refused; it must be."""
    with pytest.raises(BadDelivery) as raised:
        open_sealed(body, mac, KEY)
    return raised.value.why


def mac_of(body: str) -> str:
    """What the orchestrator would put beside it."""
    import hashlib
    import hmac

    return hmac.new(KEY, body.encode(), hashlib.sha256).hexdigest()
