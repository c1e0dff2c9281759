"""`mcpfleet policy`: what is in force, why something would be refused, and trying a folder before it is in force."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.markup import escape

from orchestrator.cli.desk import JsonFlag, desk_of
from orchestrator.cli.exits import BadInput, Exit
from orchestrator.policy import facts
from orchestrator.policy.cedar import Rules
from orchestrator.policy.files import read
from orchestrator.policy.question import Decision, Question, Who, who
from tasks.invocation import FLEET_TENANT, TRUST_LEAST, Lane, Principal
from tasks.policy_wire import DecisionView, PolicyView
from tasks.scopes import Role
from tasks.tool import ToolSpec

CASES = "cases.toml"

policy = typer.Typer(no_args_is_help=True, help="Policies: what is in force, why, and trying them out.")
RoleOption = Annotated[list[str], typer.Option("--role", "-r", help="May be repeated.")]
TrustOption = Annotated[int, typer.Option("--trust", min=0, max=100, help="90 local, 70 trusted network, 50 outside.")]


@policy.command()
def show(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show the policies and limits in force."""
    desk = desk_of(ctx)
    with desk.api() as api:
        view = api.get("/v1/policy", PolicyView)
    if as_json:
        desk.screen.json(view)
        return
    if not view.is_on:
        desk.screen.line("no policies are set (MCPFLEET_POLICY_DIR): roles and tenants alone decide")
        return
    for name, those in (("files", view.files), ("policies", view.policies), ("limits", view.limits)):
        desk.screen.line(f"{name}: {' '.join(those) or 'none'}" if name == "files" else f"{name}: {', '.join(those)}")
    if view.problem is not None:
        desk.screen.note(f"[red]✗[/] the folder has changed and is not in force: {escape(view.problem)}")


@policy.command()
def explain(
    ctx: typer.Context,
    tool: Annotated[str | None, typer.Argument(metavar="[TOOL]", help="As `mcpfleet tools` shows it.")] = None,
    *,
    principal: Annotated[str, typer.Option("--as", help="Who would ask.")],
    role: RoleOption = ["agent"],  # noqa: B006 - typer reads it
    tenant: Annotated[str | None, typer.Option("--tenant")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="May be repeated.")] = None,
    trust: TrustOption = TRUST_LEAST,
    project: Annotated[str | None, typer.Option("--project", "-p")] = None,
    node: Annotated[str | None, typer.Option("--node", help="Whether a call of theirs may run there.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say whether somebody might call a tool, or use a node, and which policy says so. Does nothing. Exit 1: no."""
    desk = desk_of(ctx)
    if (tool is None) == (node is None):
        raise BadInput("name either a TOOL, or a --node")
    body = {
        "principal": principal,
        "tenant": tenant,
        "roles": role,
        "groups": group or [],
        "trust": trust,
        "action": "call" if node is None else "use",
        "tool": tool,
        "node": node,
        "project": project,
    }
    with desk.api() as api:
        view = api.post("/v1/policy/explain", DecisionView, body)
    if as_json:
        desk.screen.json(view)
    else:
        desk.screen.line(f"{'allowed' if view.is_allowed else 'refused'}: {view.why}")
    if not view.is_allowed:
        raise typer.Exit(Exit.FAILED)


class _Case(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    expect: str = Field(pattern="^(allow|deny)$")
    by: str | None = None
    """A policy that must have decided."""
    principal: str = "somebody"
    tenant: str = FLEET_TENANT
    roles: list[Role] = [Role.AGENT]
    groups: list[str] = []
    trust: int = Field(TRUST_LEAST, ge=0, le=100)
    action: str = Field("call", pattern="^(call|see|use)$")
    tool: str = Field("server.tool", pattern=r"^[^.]+\..+$")
    read_only: bool = False
    project: str | None = None
    lane: Lane = Lane.TOOLS
    node: str = "node"
    pool: str = "main"
    location: str = ""
    capabilities: list[str] = []


class _Place:
    def __init__(self, case: _Case) -> None:
        self.node, self.pool, self.location = case.node, case.pool, case.location
        self.capabilities = frozenset(case.capabilities)


class _Cases(BaseModel):
    model_config = ConfigDict(extra="forbid")
    case: list[_Case]


@policy.command("test")
def check(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With *.cedar, limits.toml and cases.toml.")],
    as_json: JsonFlag = False,
) -> None:
    """Read a folder as an orchestrator would, and ask it the questions of its cases.toml. Needs no fleet."""
    desk = desk_of(ctx)
    found = read(folder)
    failed, asked = [], _cases(folder / CASES)
    for case in asked:
        decision = _asked(found.rules, case)
        if decision.is_allowed != (case.expect == "allow") or (case.by is not None and case.by not in decision.rules):
            failed.append((case, decision))
    if as_json:
        said = [{"case": case.name, "expected": case.expect, "why": decision.why()} for case, decision in failed]
        desk.screen.json({"policies": list(found.rules.ids), "cases": len(asked), "failed": said})
    else:
        desk.screen.line(f"{len(found.rules.ids)} policies, {len(asked)} cases, {len(failed)} failed")
        for case, decision in failed:
            was = "allowed" if decision.is_allowed else "refused"
            wanted = f"{case.expect}{'' if case.by is None else f' by {case.by}'}"
            desk.screen.note(
                f"[red]✗[/] {escape(case.name)}: {was}, {escape(decision.why())}; expected {escape(wanted)}"
            )
        if not asked:
            desk.screen.note(f"[yellow]![/] no {CASES}: nothing was asked, the files are well-formed")
    if failed:
        raise typer.Exit(Exit.FAILED)


def _cases(path: Path) -> list[_Case]:
    try:
        return _Cases.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).case
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise BadInput(f"{path}: {where} is {str(first['input'])[:80]!r}: {first['msg']}") from error


def _asked(rules: Rules, case: _Case) -> Decision:
    return rules.decide(_question(case))


def _question(case: _Case) -> Question:
    asker: Who = who(
        Principal(case.principal, case.tenant, frozenset(case.roles), groups=frozenset(case.groups), trust=case.trust)
    )
    if case.action == "use":
        return facts.may_use(asker, _Place(case), case.project)
    server, _, name = case.tool.partition(".")
    spec = ToolSpec(server=server, definition={"name": name, "annotations": {"readOnlyHint": case.read_only}})
    return facts.may_see(asker, spec) if case.action == "see" else facts.may_call(asker, spec, case.project, case.lane)
