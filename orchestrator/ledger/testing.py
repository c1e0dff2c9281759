"""Builders for whoever tests with a ledger: rows to accept, releases and settlements of them.

Defaults are one tenant, one project, one node `n1`; every test names only what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.values import NewInvocation, Release, Released, Settlement
from tasks.ids import new_id
from tasks.invocation import Call, Invocation, Lane, Principal, State
from tasks.outcome import ErrorInfo, Failure, Outcome

AT = 1_800_000_000.0
"""Where `tasks.testing.clock.FakeClock` begins."""
HOLDER = "orchestrator-1"
BROKEN = ErrorInfo("tool_timeout", "the tool did not answer within 300 s", Failure.MAYBE_STARTED)


def new(
    *,
    invocation_id: str | None = None,
    tenant: str = "default",
    digest: str = "digest",
    at: float = AT,
    blob: str | None = None,
    replay_of: str | None = None,
    **call: Any,  # noqa: ANN401 - any field of a Call
) -> NewInvocation:
    """A row to accept. `call` is any field of `tasks.invocation.Call`."""
    asked = Call(**{"tool": "git.git_log", "invocation_id": invocation_id} | call)
    return NewInvocation(
        invocation=Invocation(
            id=invocation_id or new_id(at),
            call=asked,
            principal=Principal(id="ann", tenant=tenant),
            lane=asked.lane or Lane.TOOLS,
            state=State.WAITING,
            accepted_at=at,
            replay_of=replay_of,
        ),
        call_digest=digest,
        arguments_blob=blob,
    )


def release_of(invocation_id: str, *, fence: int = 0, node: str | None = "n1", at: float = AT) -> Release:
    """A wanted release from `fence` to the next."""
    return Release(
        invocation_id=invocation_id,
        expected_fence=fence,
        pool="default",
        node=node,
        incarnation=None if node is None else "inc-1",
        term=1,
        lane=Lane.TOOLS,
        queue=f"mcpfleet.node.{node}.tools",
        reasons=("least busy: n1 (0 of 8 slots used)",),
        at=at,
    )


def success(
    invocation_id: str, *, fence: int = 1, node: str | None = "n1", successors: tuple[NewInvocation, ...] = ()
) -> Settlement:
    """The tool answered."""
    return Settlement(
        invocation_id=invocation_id,
        fence=fence,
        node=node,
        to=State.SUCCEEDED,
        attempt_ending="succeeded",
        at=AT + 2,
        started_at=AT + 1,
        outcome=Outcome("succeeded", result_json='{"content":[]}'),
        counts_try=True,
        successors=successors,
    )


def failure(invocation_id: str, *, fence: int = 1, node: str | None = "n1", reason: str = "permanent") -> Settlement:
    """It failed for good, and is kept as a dead letter."""
    return Settlement(
        invocation_id=invocation_id,
        fence=fence,
        node=node,
        to=State.FAILED,
        attempt_ending="failed",
        at=AT + 2,
        started_at=AT + 1,
        outcome=Outcome("failed", error=BROKEN),
        error=BROKEN,
        counts_try=True,
        dead_reason=reason,
    )


def again(invocation_id: str, *, fence: int = 1, node: str | None = "n1", not_before: float = AT + 30) -> Settlement:
    """It failed and is to be tried again."""
    return Settlement(
        invocation_id=invocation_id,
        fence=fence,
        node=node,
        to=State.WAITING,
        attempt_ending="failed",
        at=AT + 2,
        error=BROKEN,
        not_before=not_before,
        counts_try=True,
    )


def unreachable(invocation_id: str, *, fence: int = 1) -> Settlement:
    """Its node's lease lapsed: said by the orchestrator."""
    return Settlement(invocation_id, fence, None, State.UNREACHABLE, attempt_ending="lost", at=AT + 2)


async def accepted(ledger: Ledger, *rows: NewInvocation) -> list[str]:
    """Accept them in one set; their ids."""
    return [one.invocation_id for one in await ledger.accept(rows)]


async def released(ledger: Ledger, ids: Sequence[str], *, fence: int = 0, node: str | None = "n1") -> list[Released]:
    """Lead, and release them all to one node."""
    epoch = await ledger.take_epoch(HOLDER, 10.0)
    assert epoch is not None, "another holder leads"
    found = await ledger.release([release_of(one, fence=fence, node=node) for one in ids], epoch)
    return [one for one in found if one is not None]
