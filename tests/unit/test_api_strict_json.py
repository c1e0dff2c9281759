"""JSON as it enters: nothing silently dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.strict_json import DEPTH_MAX, MalformedJson, parse, write

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["a", "b", ":", '"', '":', "null", "\\", "ä", "\\u0061"])


@given(value=values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_whatever_json_is_read_as_it_is(value: Any, ascii_only: bool, indent: int | None) -> None:
    """No valid text is refused and none is changed, with escapes and without."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parse(text.encode()) == json.loads(text)


@given(names=st.lists(keys, min_size=1, max_size=6), inner=keys, indent=st.booleans(), ascii_only=st.booleans())
def test_a_repeated_key_is_found_wherever_it_hides(
    names: list[str], inner: str, indent: bool, ascii_only: bool
) -> None:
    """A text is refused exactly when an object has a key twice, whatever colons and quotes its strings have."""
    space = " \n" if indent else ""
    members = ",".join(f"{json.dumps(name, ensure_ascii=ascii_only)}{space}:{space}1" for name in names)
    text = f'{{"x":[{{{members}}}],"y":{json.dumps(inner)},"z":null}}'.encode()
    if len(set(names)) == len(names):
        parse(text)
    else:
        with pytest.raises(MalformedJson, match="given twice"):
            parse(text)


def test_an_escaped_colon_does_not_hide_a_repeated_key() -> None:
    """The cheap proof counts colons: an escaped one must not stand in for a dropped pair's."""
    with pytest.raises(MalformedJson, match="given twice"):
        parse(b'{"a": 1, "a": "\\u003a"}')


def test_the_repeated_key_is_named() -> None:
    """The message says which."""
    with pytest.raises(MalformedJson, match="'project'"):
        parse(b'{"project": "a", "tool": "b.c", "project": "d"}')


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_has_a_limit(opening: bytes) -> None:
    """The limit itself is fine, one more is not, and no depth crashes."""
    closing = b"]" if opening == b"[" else b"}"
    fits = opening * DEPTH_MAX + b"1" + closing * DEPTH_MAX
    parse(fits)
    parse(b"[" + fits[len(opening) : -1] + b",{},{}]")
    for deep in (DEPTH_MAX + 1, 500, 100_000):
        with pytest.raises(MalformedJson, match=f"{DEPTH_MAX} levels"):
            parse(opening * deep + b"1" + closing * deep)


def test_many_flat_objects_are_not_deep() -> None:
    """Breadth is no depth."""
    assert len(parse(b"[" + b",".join([b"{}"] * 1000) + b"]")) == 1000


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[1e999]", b"[-1e999]", b"\xff", b'"\\ud800"', b"{} {}", b"'a'"])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    """Also what Python's own reader would let pass."""
    with pytest.raises(MalformedJson):
        parse(text)


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "9223372036854775808", "-1", "0.1", "1e300"])
def test_numbers_keep_every_digit(number: str) -> None:
    """Arguments are carried as they were sent, integers over 64 bits too."""
    assert write(parse(f'{{"n":{number}}}'.encode())) == f'{{"n":{json.dumps(json.loads(number))}}}'
