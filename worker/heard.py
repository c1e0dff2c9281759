"""When the fleet was last heard of, as the age of a file: what the machine's dead-man looks at.

Owns `<state_dir>/heard`. Refuses to end anything: a timer of the machine does, so that it works without
this process too (ansible/roles/node/files/deadman).
"""

from __future__ import annotations

from pathlib import Path

import structlog

_log = structlog.get_logger()


class Heard:
    """The file. Kept only where a dead-man is set: it costs a write per renewal."""

    def __init__(self, path: Path, *, is_kept: bool) -> None:
        self._path, self._is_kept = path, is_kept
        self._is_told = False

    def now(self) -> None:
        """A renewal was granted."""
        if not self._is_kept:
            return
        try:
            self._path.touch(mode=0o600)
        except OSError as error:
            if not self._is_told:
                _log.exception("heard_not_written", path=str(self._path), detail=str(error))
            self._is_told = True
        else:
            self._is_told = False
