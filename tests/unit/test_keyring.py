"""The key ring: what is sealed opens for its own item only, and after a rotation still."""

from __future__ import annotations

import base64
import pickle
import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.secrets.keyfile import add_key, new_key_file, read_keys
from orchestrator.secrets.keyring import KeyMissing, KeyRing, NotAsSealed, aad_of, is_sealed, kid_of
from tasks.errors import SettingsError

HERE = aad_of("secret", "default", "git", "1")


def ring(*kids: str) -> KeyRing:
    """One with keys of these names; the first seals."""
    return KeyRing({kid: secrets.token_bytes(32) for kid in kids}, newest=kids[0])


@given(plain=st.binary(max_size=2_000), aad=st.binary(max_size=60))
def test_what_was_sealed_opens_with_the_same_aad(plain: bytes, aad: bytes) -> None:
    """Any bytes come back, and the sealed form is no JSON and holds none of them."""
    keys = ring("k1")
    sealed = keys.seal(plain, aad=aad)
    assert keys.open(sealed, aad=aad) == plain
    assert is_sealed(sealed)
    assert len(plain) < 8 or plain not in sealed.encode()


def test_a_row_moved_to_another_place_does_not_open() -> None:
    """A thief who may write rows cannot have tenant b read what tenant a sealed, nor an old version as the new."""
    keys = ring("k1")
    sealed = keys.seal(b"s", aad=HERE)
    for other in (("secret", "b", "git", "1"), ("secret", "default", "git", "2"), ("secret", "default", "gi", "t1")):
        with pytest.raises(NotAsSealed):
            keys.open(sealed, aad=aad_of(*other))


def test_no_changed_character_opens() -> None:
    """Every part of the text is authenticated."""
    keys = ring("k1")
    sealed = keys.seal(b"what it says", aad=HERE)
    for place, was in enumerate(sealed):
        for other in set("abcXYZ019-_.=\n ") - {was}:
            with pytest.raises((NotAsSealed, KeyMissing)):
                keys.open(sealed[:place] + other + sealed[place + 1 :], aad=HERE)


def test_a_new_key_seals_and_the_old_one_opens() -> None:
    """Rotation: nothing is unreadable in between, and what was rewrapped needs the old key no more."""
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    sealed = KeyRing({"k1": old}, newest="k1").seal(b"s", aad=HERE)
    both = KeyRing({"k2": new, "k1": old}, newest="k2")
    assert both.open(sealed, aad=HERE) == b"s"
    rewrapped = both.rewrap(sealed, aad=HERE)
    assert kid_of(rewrapped) == "k2"
    assert rewrapped.rpartition(".")[2] == sealed.rpartition(".")[2], "the item itself is not encrypted anew"
    assert KeyRing({"k2": new}, newest="k2").open(rewrapped, aad=HERE) == b"s"


def test_a_missing_and_a_wrong_key_are_told_apart() -> None:
    """The person at the console is told which line to put back, or that the file is another fleet's."""
    sealed = ring("k1").seal(b"s", aad=HERE)
    with pytest.raises(KeyMissing, match=r"'k1'.*has k2; put the line"):
        ring("k2").open(sealed, aad=HERE)
    with pytest.raises(NotAsSealed, match="another key under that name"):
        ring("k1").open(sealed, aad=HERE)


def test_a_key_ring_shows_no_key_and_is_not_pickled() -> None:
    """Not in a log line, not in a traceback's repr, not in a message."""
    key = secrets.token_bytes(32)
    keys = KeyRing({"k1": key}, newest="k1")
    assert repr(keys) == "KeyRing(k1)"
    with pytest.raises(TypeError):
        pickle.dumps(keys)


def test_a_new_file_is_for_its_owner_and_made_once(tmp_path: Path) -> None:
    """Two starts of a local fleet have one key."""
    path = tmp_path / "state" / "keys"
    sealed = new_key_file(path, kid="k1").seal(b"s", aad=HERE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert new_key_file(path, kid="k9").open(sealed, aad=HERE) == b"s"
    assert [one.name for one in path.parent.iterdir()] == ["keys"], "no draft is left"


def test_an_added_key_is_first_and_keeps_the_others(tmp_path: Path) -> None:
    """`new-key` on a file that is there rotates."""
    path = tmp_path / "keys"
    sealed = new_key_file(path, kid="k1").seal(b"s", aad=HERE)
    keys = add_key(path, kid="k2")
    assert (keys.newest, keys.kids) == ("k2", ("k2", "k1"))
    assert keys.open(sealed, aad=HERE) == b"s"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="already"):
        add_key(path, kid="k1")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that the machine's other users have is none."""
    path = tmp_path / "keys"
    new_key_file(path, kid="k1")
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_keys(path)


GOOD = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no key"),
        ("# nothing\n", "has no key"),
        ("k1\n", "line 1"),
        (f"K1 {GOOD}\n", "line 1"),
        (f"k1 {GOOD} more\n", "line 1"),
        (f"# first\nk1 {GOOD[:-8]}\n", "line 2"),
        (f"k1 {GOOD}\nk1 {GOOD}\n", "again"),
        ("kö x\n", "not text"),
    ],
)
def test_a_wrong_file_says_where_and_nothing_of_the_key(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong, by line; the words of the line itself may be a key."""
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=said) as caught:
        read_keys(path)
    assert GOOD[:16] not in str(caught.value)


def test_a_missing_file_is_said_and_not_made(tmp_path: Path) -> None:
    """A server whose key is gone does not begin with another one."""
    with pytest.raises(SettingsError, match="is not there; put it back"):
        read_keys(tmp_path / "keys")
    assert not (tmp_path / "keys").exists()
