"""Paths of policy: what is in force, and why something would be allowed or not."""

from __future__ import annotations

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Policies
from orchestrator.api.problems import InvalidBody
from orchestrator.api.reply import Reply, model
from tasks.invocation import FLEET_TENANT, Principal
from tasks.policy_wire import DecisionView, PolicyView, QuestionRequest
from tasks.scopes import Scope


class PolicyDoor:
    """The policies in force."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("GET", "/v1/policy", "policy", Scope.POLICY_READ, "The policies in force", self.show,
                      {200: Answer("them", PolicyView)}, tag="identity"),
            Operation("POST", "/v1/policy/explain", "explain_policy", Scope.POLICY_READ,
                      "Whether somebody might do something, and which policy says so; does nothing", self.explain,
                      {200: Answer("the answer", DecisionView)}, body=QuestionRequest, errors=(404,), tag="identity"),
        )  # fmt: skip

    async def show(self, _ask: Ask) -> Reply:
        """GET /v1/policy."""
        return model(self._policies.show())

    async def explain(self, ask: Ask) -> Reply:
        """POST /v1/policy/explain."""
        said = ask.body(QuestionRequest)
        tenant = said.tenant or ask.principal.tenant
        if ask.principal.tenant not in {FLEET_TENANT, tenant}:
            raise InvalidBody([("tenant", f"you may ask about {ask.principal.tenant!r} only")])
        if (said.node is None) is (said.action == "use"):
            raise InvalidBody([("node", "give it with the action `use`, and with no other")])
        if said.action != "use" and said.tool is None:
            raise InvalidBody([("tool", "is missing: which tool is it about?")])
        who = Principal(said.principal, tenant, frozenset(said.roles), groups=frozenset(said.groups), trust=said.trust)
        decision = self._policies.explain(who, said.action, said.tool or said.node or "", said.project)
        return model(
            DecisionView(
                is_allowed=decision.is_allowed,
                why=decision.why(),
                policies=list(decision.rules),
                errors=list(decision.errors),
            )
        )
