"""A unix socket that is listened on, which nobody but this node's user may open."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Bound, not accepting yet; removed at the end."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's own path has 107 bytes at most
        finally:
            os.close(folder)
        path.chmod(0o600)
        yield listener
    path.unlink(missing_ok=True)
