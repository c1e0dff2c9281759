"""Tools, nodes and resources as policies see them. Pure."""

from __future__ import annotations

from orchestrator.ledger.guest import Place
from orchestrator.policy.question import Attribute, Question, Thing, Who
from orchestrator.policy.schema import CALL, GRANT, SEE, USE
from tasks.invocation import Lane
from tasks.tool import ToolSpec


def tool(spec: ToolSpec) -> Thing:
    """A tool. What its server does not say of it is taken for the worse, as the MCP specification does."""
    hints = spec.definition.get("annotations") or {}
    return Thing(
        "Tool",
        spec.name,
        (
            ("name", spec.name),
            ("server", spec.server),
            ("readOnly", hints.get("readOnlyHint") is True),
            ("destructive", hints.get("destructiveHint") is not False and hints.get("readOnlyHint") is not True),
            ("openWorld", hints.get("openWorldHint") is not False),
        ),
        ("Server", spec.server),
    )


def node(place: Place) -> Thing:
    """A node, in its pool."""
    attributes: tuple[tuple[str, Attribute], ...] = (
        ("name", place.node),
        ("pool", place.pool),
        ("location", place.location),
        ("capabilities", place.capabilities),
    )
    return Thing("Node", place.node, attributes, ("Pool", place.pool))


def may_call(asker: Who, spec: ToolSpec, project: str | None, lane: Lane) -> Question:
    """Of one call."""
    return Question(asker, CALL, tool(spec), (("lane", str(lane)), *_project(project)))


def may_see(asker: Who, spec: ToolSpec) -> Question:
    """Of one tool in a list."""
    return Question(asker, SEE, tool(spec))


def may_use(asker: Who, place: Place, project: str | None) -> Question:
    """Of a node that could run a call."""
    return Question(asker, USE, node(place), _project(project))


def may_be_granted(asker: Who, name: str, risk: int, scope: frozenset[str]) -> Question:
    """Of a resource that AuthGuardian guards."""
    return Question(asker, GRANT, Thing("Resource", name, (("name", name), ("risk", risk))), (("scope", scope),))


def _project(project: str | None) -> tuple[tuple[str, Attribute], ...]:
    return () if project is None else (("project", project),)
