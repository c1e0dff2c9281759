"""What the fleet promises, and how it does."""

from __future__ import annotations

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Objectives
from orchestrator.api.reply import Reply, model
from tasks.scopes import Scope
from tasks.wire_objectives import ObjectivesView


class ObjectivesDoor:
    """One path."""

    def __init__(self, objectives: Objectives) -> None:
        self._objectives = objectives

    def operations(self) -> tuple[Operation, ...]:
        """Its declaration."""
        return (
            Operation("GET", "/v1/objectives", "objectives", Scope.FLEET_READ,
                      "Service level objectives, and what is left of their error budgets", self.show,
                      {200: Answer("measured since this orchestrator began", ObjectivesView)}, tag="fleet"),
        )  # fmt: skip

    async def show(self, _ask: Ask) -> Reply:
        """GET /v1/objectives."""
        return model(self._objectives.show())
