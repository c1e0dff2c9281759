"""The conformance gate as a test: the official suite against the front, over the real fleet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent / "run.py"
CANNOT = 3


@pytest.mark.live
@pytest.mark.timeout(1800)
def test_front_passes_the_official_conformance_suite(request: pytest.FixtureRequest) -> None:
    """No scored check of `active` or of revision 2026-07-28 fails, nor any of the tasks extension's."""
    done = subprocess.run([sys.executable, str(RUN)], check=False, capture_output=True, text=True, timeout=1700)
    if done.returncode == CANNOT:
        if request.config.getoption("--live-required"):
            pytest.fail(done.stderr, pytrace=False)
        pytest.skip(f"conformance suite: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
