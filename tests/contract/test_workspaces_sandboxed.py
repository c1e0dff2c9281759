"""A workspace inside the sandbox that agents run in: it works there, and nothing else of the node is in reach."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.workspace_rig import LIMIT_BYTES, Rig
from worker.workspaces import sandbox

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)"
)


async def test_an_agent_commits_and_cannot_touch_the_mirror(tmp_path: Path) -> None:
    """History is there, a commit is made; the mirror takes no write, and another run's files are not to be seen."""
    rig = Rig(tmp_path)
    rig.begin()
    workspaces = rig.workspaces()
    (rig.folder / "egress").touch()
    async with (
        workspaces.open(rig.project, None, "run1") as workspace,
        workspaces.open(rig.project, None, "run2") as other,
    ):
        world = sandbox.Sandbox(workspace.path, workspace.home, rig.folder / "egress", workspace.read_only)
        objects = next(iter(workspace.read_only))
        script = f"""
            git log --format=%s && git fsck --full >/dev/null && echo x >> readme.txt && git commit -qam inside &&
            git log -1 --format=%an:%s
            touch {objects}/evil 2>&1 || ls {objects.parent} && ls {other.path} {rig.node}/runs 2>&1
        """
        done = await asyncio.to_thread(
            subprocess.run,
            sandbox.command(sandbox.find_bwrap(), world, ("/bin/sh", "-c", script)),
            env=sandbox.environ(world),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        lines = done.stdout.splitlines()
        assert lines[:2] == ["work", "agent:inside"], done.stderr
        assert "Read-only file system" in lines[2]
        assert lines[3] == "objects"
        assert all("No such file or directory" in line for line in lines[4:])
        assert len(lines) == 6
        assert b"+x\n" in (await workspace.patch(LIMIT_BYTES)).data
