"""The policies in force, for people: what they are, and what they would say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from orchestrator.ledger.guest import Place
from orchestrator.policy import facts
from orchestrator.policy.desk import PolicyDesk
from orchestrator.policy.question import Decision, who
from orchestrator.policy.schema import SEE, USE
from tasks.errors import NotFound, UnknownTool
from tasks.invocation import Principal
from tasks.policy_wire import PolicyView
from tasks.tool import ToolSpec


class Tools(Protocol):
    """The fleet's tools."""

    def tool(self, name: str) -> ToolSpec | None: ...
    def tools(self) -> dict[str, ToolSpec]: ...


class PolicyViews:
    """Answers operators."""

    def __init__(self, desk: PolicyDesk, tools: Tools, places: Callable[[], Iterable[Place]]) -> None:
        self._desk, self._tools, self._places = desk, tools, places

    def show(self) -> PolicyView:
        """What is in force."""
        folder = self._desk.folder
        if folder is None:
            return PolicyView(is_on=False)
        limits = [f"rate {one.name}" for one in folder.limits.rates]
        return PolicyView(
            is_on=True,
            files=list(folder.files),
            policies=list(folder.rules.ids),
            limits=[*limits, *(f"quota {one.name}" for one in folder.limits.quotas)],
            digest=folder.digest,
            problem=self._desk.problem,
        )

    def explain(self, principal: Principal, action: str, name: str, project: str | None) -> Decision:
        """What they would say.

        Raises:
            UnknownTool, NotFound: no such tool, or node.
        """
        if action == USE:
            places = {place.node: place for place in self._places()}
            if name not in places:
                raise NotFound("node", name, sorted(places))
            return self._desk.decide(facts.may_use(who(principal), places[name], project))
        spec = self._tools.tool(name)
        if spec is None:
            raise UnknownTool(name, list(self._tools.tools()))
        if action == SEE:
            return self._desk.decide(facts.may_see(who(principal), spec))
        return self._desk.decide(facts.may_call(who(principal), spec, project, spec.lane))
