"""The key that signs checkpoints, made at the first start."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.audit.checkpoint import signer_at


def test_a_replica_with_the_same_process_id_does_not_stop_a_start(tmp_path: Path) -> None:
    """Two containers make it at once: each has a draft of its own, and the first one's key is both's."""
    (tmp_path / f"audit.key.{os.getpid()}.partial").write_text("another replica's, half written")
    made = signer_at(tmp_path / "audit.key")
    assert signer_at(tmp_path / "audit.key").key_id == made.key_id
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
