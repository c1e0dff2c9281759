"""Puts a patch that a stranger wrote into a fresh clone: nothing of it is run, and nothing outside is written.

The patch never touches files. Git applies it to an index of the host's own, where paths into `.git`, with `..`,
or below something that is no folder cannot stand; the tree that comes of it is then checked out as what anybody
pushed is: without hooks, filters or drivers, never through a link. Refuses half a patch.
"""

from __future__ import annotations

import shutil

from tasks.errors import Permanent
from worker.workspaces.clones import Clone
from worker.workspaces.errors import GitFailed
from worker.workspaces.git import Git, Repository

SAID_CHARS = 300


class PatchUnfit(Permanent):
    """It does not go on top of its base."""

    code = "patch_unfit"

    def __init__(self, base: str, said: str) -> None:
        super().__init__(
            f"the saved changes do not fit the commit {base[:12]} ({said.strip()[:SAID_CHARS]}); "
            f"replay the call to begin it anew"
        )


async def restore(clone: Clone, patch: bytes, git: Git) -> None:
    """The files as the patch has them, not committed; before any agent has been in the clone.

    Raises:
        PatchUnfit: nothing was written.
    """
    if not patch:
        return
    index = clone.host / "index.restore"
    shutil.copy2(clone.host / "index", index)
    try:
        only_index = Repository(clone.host, index=index)
        try:
            await git.run("apply", "--cached", "--whitespace=nowarn", "-", at=only_index, given=patch)
        except GitFailed as error:
            raise PatchUnfit(clone.base, error.said) from None
        tree = (await git.run("write-tree", at=only_index)).decode().strip()
        shutil.copy2(clone.host / "index", index)
        await git.run("read-tree", "-m", "-u", clone.base, tree, at=Repository(clone.host, clone.work, index))
    finally:
        index.unlink(missing_ok=True)
