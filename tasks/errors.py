"""Every error mcpfleet raises. Fields, not prose; the message is made from them.

FleetError
├── Retryable                 the same call may succeed later
│   ├── BrokerDown            Redis does not answer
│   ├── LedgerDown            the database does not answer
│   ├── BacklogFull           too much is waiting already
│   └── OrchestratorDown      no answer on HTTP
└── Permanent                 the same call will fail again
    ├── InvalidCall           the call itself is wrong
    │   ├── InvalidArguments  against the tool's JSON schema
    │   ├── UnknownTool
    │   ├── UnknownCapability
    │   ├── InvalidProject    and ReservedProject
    │   ├── PayloadTooLarge
    │   ├── DeadlinePassed
    │   ├── SpawnLimit        too many calls made by one
    │   └── IdempotencyConflict
    ├── NotFound              no such Invocation, node, pool
    ├── NotAllowed            no or wrong credentials
    ├── Unopened              what was sealed does not open
    ├── BadDelivery           an envelope that is not ours, not for us, or old
    ├── WrongState            the ledger does not allow that move
    ├── OtherArguments        an answer to other arguments than were asked
    ├── AlreadyAnswered       somebody said something else before
    ├── ApprovalOver          nobody waits for this answer any more
    ├── SettingsError         a setting is unknown or wrong
    ├── NotSupported          a Celery feature that cannot work here
    └── InvocationFailed      what a client raises for an Outcome that is not a success
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class FleetError(Exception):
    """The root. `code` is the constant word in problem+json and in dead letters."""

    code = "fleet_error"
    http_status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Retryable(FleetError):
    """The same call may succeed later."""

    code = "unavailable"
    http_status = 503


class Permanent(FleetError):
    """The same call will fail again."""

    code = "permanent"
    http_status = 400


class BrokerDown(Retryable):
    """Redis does not answer."""

    code = "broker_down"

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(
            f"Redis at {url} does not answer ({detail}); check that it runs and that MCPFLEET_REDIS_URL is right"
        )


class LedgerDown(Retryable):
    """The database does not answer."""

    code = "ledger_down"

    def __init__(self, detail: str) -> None:
        super().__init__(f"the ledger's database does not answer ({detail}); nothing was accepted, call again later")


class BacklogFull(Retryable):
    """Too much is waiting already."""

    code = "backlog_full"
    http_status = 429

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} calls are waiting and the limit is {limit}; call again later or add nodes")


class OrchestratorDown(Retryable):
    """No answer on HTTP."""

    code = "orchestrator_down"

    def __init__(self, url: str, detail: str, to_do: str = "start one with `mcpfleet up` or set MCPFLEET_URL") -> None:
        super().__init__(f"no orchestrator answers at {url} ({detail}); {to_do}")


class Late(Permanent):
    """A request of a node that a later one of the same process has overtaken."""

    code = "late"
    http_status = 409

    def __init__(self, what: str, node: str) -> None:
        super().__init__(f"a later {what} of the same process of node {node!r} was here before this one; ignored")


class NameHeld(Permanent):
    """A process that was superseded wants its name back, and another one lives under it."""

    code = "name_held"
    http_status = 409

    def __init__(self, node: str) -> None:
        super().__init__(
            f"another process is node {node!r}, and this one was superseded by it; it may join once that one is gone. "
            "Stop one of the two, or give it another name"
        )


class InvalidCall(Permanent):
    """The call itself is wrong."""

    code = "invalid_call"
    http_status = 422


class InvalidArguments(InvalidCall):
    """The arguments break the tool's JSON schema."""

    code = "invalid_arguments"

    def __init__(self, tool: str, path: str, detail: str) -> None:
        where = "" if path == "/" else f"argument {path}: "
        super().__init__(f"{tool}: {where}{detail}; `mcpfleet tools {tool}` shows the schema")
        self.tool, self.path, self.detail = tool, path, detail


class UnknownTool(InvalidCall):
    """No node that is joined offers this tool."""

    code = "unknown_tool"
    http_status = 404

    def __init__(self, tool: str, known: Sequence[str]) -> None:
        super().__init__(f"no node offers the tool {tool!r}{near(tool, known)}; `mcpfleet tools` lists them")
        self.tool = tool


class UnknownCapability(InvalidCall):
    """No node that is joined offers this capability."""

    code = "unknown_capability"

    def __init__(self, capability: str, known: Sequence[str]) -> None:
        super().__init__(
            f"no node offers the capability {capability!r}{near(capability, known)}; `mcpfleet nodes` lists them"
        )
        self.capability = capability


class InvalidProject(InvalidCall):
    """A project id outside the allowed form."""

    code = "invalid_project"

    def __init__(self, project: str) -> None:
        super().__init__(f"project {project[:80]!r} is not allowed: {self.rule}")

    rule = "use 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit"


class ReservedProject(InvalidProject):
    """A project that would be named as the tenant itself is, where secrets are owned."""

    rule = "secrets of that owner are the tenant's own, not a project's; use another name"


class PayloadTooLarge(InvalidCall):
    """Arguments or a result over the limit."""

    code = "payload_too_large"
    http_status = 413

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{what} has {size_bytes} bytes, the limit is {limit_bytes}; pass a reference instead")


class DeadlinePassed(InvalidCall):
    """The deadline was over before the call was accepted."""

    code = "deadline_passed"

    def __init__(self, late_s: float) -> None:
        super().__init__(f"the deadline passed {late_s:.1f} s ago; nothing was accepted")


class SpawnLimit(InvalidCall):
    """One Invocation led to too many others, or to a chain of parents that is too long."""

    code = "spawn_limit"

    def __init__(self, invocation: str, what: str, limit: int, setting: str) -> None:
        super().__init__(
            f"invocation {invocation} has {what}, the limit is {limit}: its run calls the fleet over and over. "
            f"Look at it (mcpfleet show {invocation}); where it is right, raise {setting}"
        )


class IdempotencyConflict(InvalidCall):
    """The key was used before, for another call."""

    code = "idempotency_conflict"
    http_status = 409

    def __init__(self, key: str, invocation_id: str) -> None:
        super().__init__(
            f"idempotency key {key!r} belongs to invocation {invocation_id} with another tool or other arguments; "
            "use a new key for a new call"
        )


_LISTED_BY = {
    "approval": "approvals",
    "dead letter": "dead list",
    "invocation": "ps --all",
    "key": "keys list",
    "node": "nodes",
    "enrolled node": "nodes",
    "OAuth client": "oauth client list",
    "pool": "pools",
    "secret": "secrets list",
    "tool": "tools",
}
"""Which command lists things of that kind."""


class NotFound(Permanent):
    """No such thing, and the command that lists what there is, where there is one."""

    code = "not_found"
    http_status = 404

    def __init__(self, kind: str, name: str, known: Sequence[str] = ()) -> None:
        listing = _LISTED_BY.get(kind.removesuffix(" ending with"))
        told = f"; `mcpfleet {listing}` lists them" if listing else ""
        super().__init__(f"no {kind} {name!r}{near(name, known)}{told}")


class NotAllowed(Permanent):
    """No credentials, or not these."""

    code = "not_allowed"
    http_status = 401


class Unopened(Permanent):
    """What was sealed cannot be opened with the keys at hand."""

    code = "unopened"
    http_status = 500


class BadDelivery(Permanent):
    """An envelope that is not ours, not for us, or old. `why` is a constant word."""

    code = "bad_delivery"

    def __init__(self, why: str) -> None:
        super().__init__(f"delivery refused: {why}")
        self.why = why


class WrongState(Permanent):
    """The ledger does not allow that move."""

    code = "wrong_state"
    http_status = 409

    def __init__(self, invocation_id: str, state: str, wanted: str) -> None:
        super().__init__(f"invocation {invocation_id} is {state} and cannot become {wanted}")


class OtherArguments(Permanent):
    """An answer to other arguments than those that were asked."""

    code = "other_arguments"
    http_status = 409

    def __init__(self, approval_id: str, wanted: str) -> None:
        super().__init__(
            f"the answer to approval {approval_id} is not to what it asks: its arguments_sha256 is {wanted}; look at "
            "its arguments again, and answer to those"
        )


class AlreadyAnswered(Permanent):
    """Somebody said something else before."""

    code = "already_answered"
    http_status = 409

    def __init__(self, approval_id: str, answer: str, by: str | None) -> None:
        super().__init__(f"approval {approval_id} was answered {answer} by {by or 'somebody'}; that stands")


class ApprovalOver(Permanent):
    """Nobody waits for this answer any more."""

    code = "approval_over"
    http_status = 410

    def __init__(self, approval_id: str, why: str) -> None:
        super().__init__(f"approval {approval_id} cannot be answered any more: {why}")


class SettingsError(Permanent):
    """A setting is unknown or wrong."""

    code = "settings"


class NotSupported(Permanent):
    """A Celery feature that cannot work on the fleet. `instead` says what does."""

    code = "not_supported"

    def __init__(self, feature: str, instead: str) -> None:
        super().__init__(f"{feature} is not supported by mcpfleet: {instead}")


class InvocationFailed(Permanent):
    """An Outcome that is not a success, raised by clients that asked for the result."""

    code = "invocation_failed"

    def __init__(self, invocation_id: str, ending: str, code: str, detail: str) -> None:
        super().__init__(f"invocation {invocation_id} {ending}: {detail} [{code}]")
        self.invocation_id, self.ending, self.error_code, self.detail = invocation_id, ending, code, detail


def near(name: str, known: Sequence[str]) -> str:
    """`, did you mean 'a' or 'b'?`, or nothing."""
    matches = get_close_matches(name, known, n=3, cutoff=0.6)
    return f", did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""
