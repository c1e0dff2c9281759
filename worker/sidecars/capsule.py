r"""A session capsule: what an agent's run is between two turns, as one blob.

    mcpfleet-capsule 1 <invocation>\n      so that the orchestrator knows whose it is
    zlib( <form as one JSON line>\n <transcript> <patch> )

Owns the bytes and their bounds: whoever opens one believes no length in it. Refuses to decide whether it fits a
run; `capsules.py` does. See docs/adr/0014-session-capsules.md.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.capsule import head_of
from tasks.errors import Permanent
from worker.sidecars.sidecar import Usage
from worker.sidecars.transcripts import SESSION_MAX_BYTES, SESSION_PATTERN

FORM_MAX_BYTES = 64_000
PATCH_MAX_BYTES = 64_000_000
LEVEL = 6


class CapsuleBroken(Permanent):
    """Its bytes are no capsule of this call."""

    code = "capsule_broken"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"what was saved of this run's session cannot be read ({detail}); replay the call to begin it anew"
        )


class Environment(BaseModel):
    """What a run was begun with, as far as going on depends on it."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    tool: str
    """Of the sidecar that runs it."""
    instead_of: str | None = None
    """The tool that was called, where its own sidecar could not."""
    project: str | None
    runtime: str
    """Its kind and version: transcripts are its own format."""
    model: str | None
    arguments: str
    """SHA-256 of all that the caller said."""


class Used(BaseModel):
    """What was used until then, over all attempts."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    turns: int = Field(default=0, ge=0)
    usage: Usage = Usage()
    cost_usd: float | None = Field(default=0.0, ge=0)
    """None where nobody knows a price."""


class _Form(BaseModel):
    """The one place where a capsule's own words enter."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    fence: int
    number: int = Field(ge=1)
    session: str = Field(pattern=f"^{SESSION_PATTERN.pattern}$")
    environment: Environment
    used: Used
    base: str | None = Field(default=None, pattern=r"^[0-9a-f]{40,64}$")
    branch: str | None = None
    was_on: tuple[str, ...] = ()
    transcript_bytes: int = Field(ge=0, le=SESSION_MAX_BYTES)
    patch_bytes: int = Field(ge=0, le=PATCH_MAX_BYTES)


@dataclass(frozen=True, slots=True)
class Capsule:
    """All of it."""

    invocation: str
    fence: int
    number: int
    session: str
    environment: Environment
    used: Used
    was_on: tuple[str, ...]
    """Nodes that it was at work on, this one included, in order."""
    transcript: str = field(repr=False)
    base: str | None = None
    """The commit that the project's files began from; None without a project."""
    branch: str | None = None
    patch: bytes = field(default=b"", repr=False)
    """Everything that changed since."""


def sealed(capsule: Capsule) -> bytes:
    """Its bytes. Takes a while: not on the event loop."""
    transcript = capsule.transcript.encode("utf-8", "surrogatepass")
    form = _Form(
        fence=capsule.fence,
        number=capsule.number,
        session=capsule.session,
        environment=capsule.environment,
        used=capsule.used,
        base=capsule.base,
        branch=capsule.branch,
        was_on=capsule.was_on,
        transcript_bytes=len(transcript),
        patch_bytes=len(capsule.patch),
    )
    packed = zlib.compress(form.model_dump_json().encode() + b"\n" + transcript + capsule.patch, LEVEL)
    return head_of(capsule.invocation) + packed


def opened(data: bytes, invocation: str) -> Capsule:
    """A capsule of that call. Takes a while: not on the event loop.

    Raises:
        CapsuleBroken: it is none, another call's, or more than a capsule may hold.
    """
    head = head_of(invocation)
    if not data.startswith(head):
        raise CapsuleBroken("it belongs to another call")
    unpacker = zlib.decompressobj()
    most = FORM_MAX_BYTES + SESSION_MAX_BYTES + PATCH_MAX_BYTES
    try:
        content = unpacker.decompress(memoryview(data)[len(head) :], most)
    except zlib.error as error:
        raise CapsuleBroken(str(error)) from error
    if not unpacker.eof:
        raise CapsuleBroken(f"it is cut off, or holds more than {most} bytes")
    line, _, rest = content.partition(b"\n")
    try:
        form = _Form.model_validate_json(line[:FORM_MAX_BYTES])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise CapsuleBroken(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if len(rest) != form.transcript_bytes + form.patch_bytes:
        raise CapsuleBroken("its parts are not as long as it says")
    return Capsule(
        invocation=invocation,
        fence=form.fence,
        number=form.number,
        session=form.session,
        environment=form.environment,
        used=form.used,
        was_on=form.was_on,
        transcript=rest[: form.transcript_bytes].decode("utf-8", "replace"),
        base=form.base,
        branch=form.branch,
        patch=rest[form.transcript_bytes :],
    )
