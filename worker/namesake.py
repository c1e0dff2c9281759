"""Whether this node was superseded, remembered until it is a member again: a file beside its journal.

A process that was superseded ends, and whatever started it starts it again. It then asks for its name instead of
taking it (`JoinRequest.yields`): where another process lives under the name it is refused, where the fleet forgot the
node, as a restored ledger does, it is a member again without anybody's help. Refuses to decide which it was.
"""

from __future__ import annotations

from pathlib import Path

import structlog

_log = structlog.get_logger()


class Namesake:
    """The file. That it cannot be written ends nothing: the process ends anyway."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self._path = state_dir / f"{name}.superseded"

    @property
    def is_feared(self) -> bool:
        """Another process may have the name."""
        return self._path.exists()

    def met(self) -> None:
        """The orchestrator does not know this process any more."""
        try:
            self._path.touch(mode=0o600)
        except OSError as error:
            _log.warning("superseded_not_noted", path=str(self._path), detail=str(error))

    def gone(self) -> None:
        """This process is a member."""
        self._path.unlink(missing_ok=True)
