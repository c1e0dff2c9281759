"""Projects' paths: one is erased."""

from __future__ import annotations

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Erasure
from orchestrator.api.reply import Reply, model
from tasks.erasure_wire import ErasureView
from tasks.scopes import Scope


class ProjectDoor:
    """Of the caller's own tenant."""

    def __init__(self, erasure: Erasure) -> None:
        self._erasure = erasure

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("DELETE", "/v1/projects/{project}", "erase_project", Scope.PROJECTS_ERASE,
                      "Erase a project's ended calls, results, blobs, capsules and secrets", self.erase,
                      {200: Answer("what is gone, and what is left", ErasureView)}, tag="projects"),
        )  # fmt: skip

    async def erase(self, ask: Ask) -> Reply:
        """DELETE /v1/projects/{project}."""
        return model(await self._erasure.erase(ask.path["project"], ask.principal))
