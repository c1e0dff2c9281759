"""The HTTP application: every operation, its routes and its document.

Owns the table. Refuses to serve: `orchestrator/cli` runs uvicorn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from orchestrator.api.approvals import ApprovalDoor
from orchestrator.api.audit import AuditDoor, Log
from orchestrator.api.auditing import Auditor
from orchestrator.api.certificates import NoCertificates
from orchestrator.api.costs import CostsDoor
from orchestrator.api.door import Door
from orchestrator.api.edges import Edges
from orchestrator.api.enrolments import EnrolmentDoor
from orchestrator.api.fleet_views import DeadLetters, FleetViews
from orchestrator.api.hosts import HostGuard
from orchestrator.api.invocations import Invocations
from orchestrator.api.keys import KeyDoor
from orchestrator.api.leading import LeaderGuard
from orchestrator.api.node_protocol import BlobDoor, NodeProtocol
from orchestrator.api.oauth_clients import OAuthClients, OAuthDoor
from orchestrator.api.objectives import ObjectivesDoor
from orchestrator.api.openapi import document
from orchestrator.api.operation import Operation
from orchestrator.api.policy import PolicyDoor
from orchestrator.api.ports import (
    Approvals,
    Blobs,
    Certificates,
    Challenges,
    Enrolments,
    Erasure,
    Fleet,
    Keys,
    Meter,
    Money,
    Nodes,
    NoMeter,
    Objectives,
    Policies,
    Scaling,
    Secrets,
    Verifier,
)
from orchestrator.api.problems import NoSuchPath, internal, problem
from orchestrator.api.projects import ProjectDoor
from orchestrator.api.reply import Reply
from orchestrator.api.run_grants import RunGrantDoor, RunGrants
from orchestrator.api.scale_views import ScaleDoor
from orchestrator.api.secrets import SecretDoor
from orchestrator.api.service import Service
from orchestrator.api.settings import ApiSettings
from orchestrator.api.trace import trace_of
from orchestrator.api.waits import Waits
from tasks.clock import Clock, SystemClock
from tasks.pulse_wire import PulseView

TITLE = "mcpfleet"
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def create_app(
    fleet: Fleet,
    nodes: Nodes,
    blobs: Blobs,
    verifier: Verifier,
    settings: ApiSettings,
    *,
    enrolments: Enrolments,
    scaling: Scaling,
    money: Money,
    approvals: Approvals,
    secrets: Secrets,
    erasure: Erasure,
    keys: Keys,
    challenges: Challenges,
    audit: Log,
    policies: Policies,
    oauth: OAuthClients | None = None,
    certificates: Certificates | None = None,
    registry: CollectorRegistry | None = None,
    clock: Clock | None = None,
    extra_routes: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
    leads: Callable[[], bool] | None = None,
    run_grants: RunGrants | None = None,
    meter: Meter | None = None,
    objectives: Objectives,
    pulse: Callable[[], PulseView] | None = None,
) -> Starlette:
    """The application. `extra_routes` (the MCP door's) come after ours and guard themselves.

    `leads` is asked before every request where there may be other orchestrators.
    `app.state.operations` holds the table it was made from.
    """
    service = Service(registry or CollectorRegistry(), settings, fleet)
    operations = (
        *Invocations(fleet, clock or SystemClock(), settings, money).operations(),
        *Waits(fleet, settings).operations(),
        *NodeProtocol(nodes, enrolments, certificates or NoCertificates()).operations(),
        *EnrolmentDoor(enrolments, certificates or NoCertificates()).operations(),
        *BlobDoor(blobs, settings.blob_limit_bytes).operations(),
        *FleetViews(fleet, pulse).operations(),
        *DeadLetters(fleet, clock or SystemClock()).operations(),
        *ApprovalDoor(approvals, clock or SystemClock()).operations(),
        *ScaleDoor(scaling, clock or SystemClock()).operations(),
        *SecretDoor(secrets).operations(),
        *ProjectDoor(erasure).operations(),
        *KeyDoor(keys, challenges, audit).operations(),
        *PolicyDoor(policies).operations(),
        *CostsDoor(money, clock or SystemClock()).operations(),
        *(() if run_grants is None else RunGrantDoor(run_grants).operations()),
        *OAuthDoor(oauth).operations(),
        *AuditDoor(audit).operations(),
        *ObjectivesDoor(objectives).operations(),
        *service.operations(),
    )
    service.document = orjson.dumps(document(operations, title=TITLE, version=settings.version))
    guard = [Middleware(Edges, rules=settings.edges)]
    guard += [] if settings.allowed_hosts is None else [Middleware(HostGuard, allowed=settings.allowed_hosts)]
    guard += [] if leads is None else [Middleware(LeaderGuard, leads=leads)]
    handlers: dict[Any, Any] = {404: _no_such_path, 500: _unexpected}
    app = Starlette(
        routes=[*_routes(operations, verifier, settings, Auditor(audit), meter or NoMeter()), *extra_routes],
        middleware=guard,
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.operations = operations
    return app


def _routes(
    operations: Sequence[Operation], verifier: Verifier, settings: ApiSettings, auditor: Auditor, meter: Meter
) -> list[Route]:
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, Door(methods, verifier, settings, auditor, meter)) for path, methods in by_path.items()]


async def _no_such_path(request: Request, _error: Exception) -> Response:
    error = NoSuchPath(f"nothing is at {request.url.path[:200]}; /openapi.json lists the paths")
    return _response(problem(error, trace_of(dict(request.headers.raw))))


async def _unexpected(request: Request, _error: Exception) -> Response:
    return _response(internal(trace_of(dict(request.headers.raw))))


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type=reply.media_type.decode())
