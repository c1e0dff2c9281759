"""Runs of agents ask AuthGuardian through the node that runs them, so that no token of the fleet is in a sandbox."""

from __future__ import annotations

from typing import Protocol

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.reply import Reply, model
from tasks.node import RunGrantReply, RunGrantRequest
from tasks.scopes import Scope


class RunGrants(Protocol):
    """AuthGuardian, for what a node runs."""

    async def ask(self, node: str, said: RunGrantRequest) -> RunGrantReply:
        """As whoever called that run; NotFound for one that this node does not run."""
        ...


class RunGrantDoor:
    """One path of the node protocol."""

    def __init__(self, grants: RunGrants) -> None:
        self._grants = grants

    def operations(self) -> tuple[Operation, ...]:
        """Its declaration."""
        return (
            Operation("POST", "/v1/nodes/{name}/grants", "run_grant", Scope.NODE,
                      "Ask AuthGuardian for a run on this node", self.ask,
                      {200: Answer("what became of it", RunGrantReply)}, body=RunGrantRequest, is_for_itself=True,
                      errors=(404, 409), tag="node protocol"),
        )  # fmt: skip

    async def ask(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/grants."""
        return model(await self._grants.ask(ask.path["name"], ask.body(RunGrantRequest)))
