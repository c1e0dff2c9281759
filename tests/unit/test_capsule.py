"""The bytes of a session capsule: what went in comes out, and nothing that they say is believed unchecked."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import pytest
from pydantic import ValidationError

from tasks.capsule import head_of
from worker.sidecars import capsule as capsules
from worker.sidecars.capsule import Capsule, CapsuleBroken, Environment, Used, opened, sealed
from worker.sidecars.sidecar import Usage

WHOLE = Capsule(
    invocation="inv-1",
    fence=2,
    number=7,
    session="0a1b-session",
    environment=Environment(
        tool="claude_code.run", project="shop", runtime="claude_code 1.0", model=None, arguments="d" * 64
    ),
    used=Used(turns=3, usage=Usage(input=5, is_estimated=True), cost_usd=0.25),
    was_on=("a1", "b1"),
    transcript='{"said":"plum ü"}\n',
    base="a" * 40,
    branch="agent/run",
    patch=b"\x00\xff\n",
)


def _packed(form: dict[str, object], rest: bytes) -> bytes:
    return head_of("inv-1") + zlib.compress(json.dumps(form).encode() + b"\n" + rest)


def _form(**changes: object) -> dict[str, object]:
    line = zlib.decompress(sealed(WHOLE)[len(head_of("inv-1")) :]).partition(b"\n")[0]
    return json.loads(line) | changes


def test_what_goes_in_comes_out() -> None:
    """All of it, also bytes that are no text."""
    assert opened(sealed(WHOLE), "inv-1") == WHOLE


def test_another_calls_capsule_is_refused() -> None:
    """Also where the id only begins the same."""
    for other in ("inv-2", "inv-11", "inv-"):
        with pytest.raises(CapsuleBroken, match="another call"):
            opened(sealed(WHOLE), other)


@pytest.mark.parametrize(
    "data",
    [
        head_of("inv-1"),
        head_of("inv-1") + b"no zlib",
        sealed(WHOLE)[:-9],
        _packed(_form(transcript_bytes=1), b""),
        _packed(_form(transcript_bytes=-1, patch_bytes=1), b""),
        _packed(_form(session="../../.ssh/config", transcript_bytes=0, patch_bytes=0), b""),
        _packed(_form(session="a\n", transcript_bytes=0, patch_bytes=0), b""),
        _packed(_form(base="--upload-pack=x", transcript_bytes=0, patch_bytes=0), b""),
        _packed(_form(used={"cost_usd": -5.0}, transcript_bytes=0, patch_bytes=0), b""),
        head_of("inv-1") + zlib.compress(b"[]\n"),
    ],
    ids=["empty", "junk", "cut", "lengths", "negative", "path", "newline", "base", "money", "list"],
)
def test_what_is_no_capsule_is_refused(data: bytes) -> None:
    """With one error, whatever is wrong with it."""
    with pytest.raises(CapsuleBroken):
        opened(data, "inv-1")


def test_a_bomb_does_not_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking ends at the bound, not at what the bytes would become."""
    monkeypatch.setattr(capsules, "PATCH_MAX_BYTES", 0)
    monkeypatch.setattr(capsules, "SESSION_MAX_BYTES", 1000)
    bomb = head_of("inv-1") + zlib.compress(bytes(10_000_000))
    assert len(bomb) < 20_000
    with pytest.raises(CapsuleBroken, match="holds more"):
        opened(bomb, "inv-1")


def test_a_session_with_a_name_that_is_none_is_not_sealed() -> None:
    """It would be refused when it is needed."""
    with pytest.raises(ValidationError):
        sealed(replace(WHOLE, session="../x"))
