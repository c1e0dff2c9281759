"""The file with the key-encryption keys: one a line, `kid key`, the first seals and all open.

    # mcpfleet keys: the first seals, all open. Keep a copy where the database's backups are not.
    k2026-11-22 3q2+7w…                                            32 bytes, base64

A Docker secret, a systemd credential, or a file that only its owner can read. Owns its form and its mode.
Refuses to make one unless it is asked to: a server whose key is missing has lost its way to what it sealed,
and a new key would hide that.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from orchestrator.secrets.keyring import KEY_BYTES, KID, KeyRing
from tasks.errors import SettingsError

HEADER = "# mcpfleet keys: the first seals, all open. Keep a copy where the database's backups are not.\n"
FILE_LIMIT_BYTES = 64 * 1024
MOUNTED = ("/run/secrets/", "/run/credentials/")
"""Docker and systemd put secrets here for one container or one service, often readable to all inside it."""


def read_keys(path: Path) -> KeyRing:
    """The keys of this file.

    Raises:
        SettingsError: it is missing, others can read it, or a line is wrong; nothing of a key is said.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _wrong(path, "it is not a file", "name a file")
        _check_mode(path, mode)
        with path.open("rb") as file:
            text = file.read(FILE_LIMIT_BYTES + 1).decode("ascii")
    except FileNotFoundError:
        how = f"put it back from its backup; where nothing was sealed yet, `mcpfleet secrets new-key {path}` makes one"
        raise _wrong(path, "it is not there", how) from None
    except OSError as error:
        raise _wrong(path, f"it cannot be read ({error.strerror})", "give it to the user of the orchestrator") from None
    except UnicodeDecodeError:
        raise _wrong(path, "it is not text", "each line is `kid key`, the key in base64") from None
    if len(text) > FILE_LIMIT_BYTES:
        raise _wrong(path, f"it is larger than {FILE_LIMIT_BYTES} bytes", "name the key file")
    return _parsed(path, text)


def new_key_file(path: Path, *, kid: str) -> KeyRing:
    """Make the file with one new key, mode 0600, whole or not at all; what is there already is read instead.

    Raises:
        SettingsError: it cannot be written, or what is there is wrong.
    """
    if not path.exists():
        _write(path, HEADER + _line(kid), is_new=True)
    return read_keys(path)


def add_key(path: Path, *, kid: str) -> KeyRing:
    """Put a new key first: from the next start it seals. The others stay, and open.

    Raises:
        SettingsError: the file is wrong, cannot be written, or has that kid.
    """
    ring = read_keys(path)
    if kid in ring.kids:
        raise _wrong(path, f"it has a key {kid!r} already", "choose another --kid")
    before = [line for line in path.read_text(encoding="ascii").splitlines(keepends=True) if line != HEADER]
    _write(path, HEADER + _line(kid) + "".join(before), is_new=False)
    return read_keys(path)


def _check_mode(path: Path, mode: int) -> None:
    is_mounted = str(path.resolve()).startswith(MOUNTED)
    shared = stat.S_IWGRP | stat.S_IWOTH | (0 if is_mounted else stat.S_IRGRP | stat.S_IROTH)
    if mode & shared:
        raise _wrong(path, f"others may read or write it (mode {mode & 0o777:04o})", f"chmod 600 {path}")


def _parsed(path: Path, text: str) -> KeyRing:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _decoded(words[1:])
        if not KID.fullmatch(words[0]) or key is None:
            what = f"line {number} is not `kid key`: a kid of a-z, 0-9 and -, and {KEY_BYTES} bytes in base64"
            raise _wrong(path, what, "correct that line")
        if words[0] in keys:
            raise _wrong(path, f"line {number} names the kid {words[0]!r} again", "kids are unique")
        keys[words[0]] = key
    if not keys:
        raise _wrong(path, "it has no key", f"remove it, then `mcpfleet secrets new-key {path}`")
    return KeyRing(keys, newest=next(iter(keys)))


def _decoded(words: Iterable[str]) -> bytes | None:
    words = list(words)
    if len(words) != 1:
        return None
    with suppress(binascii.Error, ValueError):
        key = base64.b64decode(words[0], validate=True)
        return key if len(key) == KEY_BYTES else None
    return None


def _line(kid: str) -> str:
    if not KID.fullmatch(kid):
        raise SettingsError(f"the kid {kid[:40]!r} is not allowed: 1 to 32 of a-z, 0-9 and -, not beginning with -")
    return f"{kid} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


def _write(path: Path, text: str, *, is_new: bool) -> None:
    """On the disk when this returns: what is sealed under a key that a crash took is lost."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            with suppress(FileExistsError):  # another process made one in between: that one counts
                os.link(draft, path)
        else:
            draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _wrong(path, f"it cannot be written ({error.strerror})", "check the folder and the disk") from error
    finally:
        draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wrong(path: Path, what: str, how: str) -> SettingsError:
    return SettingsError(f"the key file {path} (MCPFLEET_KEY_FILE): {what}; {how}")
