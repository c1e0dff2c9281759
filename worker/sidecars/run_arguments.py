"""What a caller may say of a run: the arguments of `claude_code.run`, and their JSON schema.

Refuses what could not be carried (NULs, ten megabytes) before anything is started.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.sidecars.sidecar import RunLimits, Session, SessionMode
from worker.upstreams.errors import permanent

PROMPT_MAX_CHARS = 1_000_000
LEAST_S = 0.001
"""Of a time that is over: 0 is no limit."""
F = TypeVar("F", bound=BaseModel)


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character; remove it")
    return value


Text = Annotated[str, AfterValidator(_without_nul)]
Prompt = Annotated[str, Field(min_length=1, max_length=PROMPT_MAX_CHARS), AfterValidator(_without_nul)]


class RunArguments(BaseModel):
    """One run of an agent."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: Prompt = Field(description="What the agent is to do.")
    model: Text | None = Field(default=None, description="Of the provider; the node's own where absent.")
    session: Text | None = Field(default=None, description="Continue this session: an earlier result's session_id.")
    fork: bool = Field(default=False, description="Continue from a copy; the session itself stays as it is.")
    allowed_tools: tuple[Text, ...] = Field(default=(), description="Tools that it may use without asking.")
    denied_tools: tuple[Text, ...] = Field(default=(), description="Tools that it may not use.")
    permission_mode: Literal["default", "acceptEdits", "plan", "dontAsk", "ask"] = Field(
        default="acceptEdits",
        description="What it may do without asking; `ask`: a person allows or denies each tool that is neither.",
    )
    output_schema: dict[str, Any] | None = Field(default=None, description="JSON schema that the answer is to fit.")
    ref: Text | None = Field(default=None, description="Branch, tag or commit to begin from; the default branch.")
    push: bool = Field(default=False, description="Push the work as the branch agent/<run>, beside the patch.")
    fallback: bool = Field(
        default=True, description="It may fall back to another provider, where the node's operator says so."
    )
    max_turns: int | None = Field(default=None, ge=1, le=1000, description="Requests to the model.")
    max_cost_usd: float | None = Field(default=None, gt=0, description="US dollars.")
    max_s: float | None = Field(default=None, gt=0, description="Seconds from start to end.")

    @model_validator(mode="after")
    def _fork_needs_a_session(self) -> RunArguments:
        if self.fork and self.session is None:
            raise ValueError("fork needs a session to fork from")
        return self

    def within(self, ours: RunLimits, left_s: float) -> RunLimits:
        """The narrower of a sidecar's limits and these, where it may run for another `left_s`."""
        cost_usd = min((limit for limit in (ours.cost_usd, self.max_cost_usd) if limit is not None), default=None)
        wall_s = max(LEAST_S, min(ours.wall_s, left_s))
        return RunLimits(wall_s, ours.silence_s, self.max_turns or ours.turns, cost_usd)

    def how_it_begins(self) -> Session:
        """New, resumed or forked."""
        if self.session is None:
            return Session()
        return Session(SessionMode.FORK if self.fork else SessionMode.RESUME, self.session)


def parsed(form: type[F], arguments: dict[str, Any], tool: str) -> F:
    """Raises UpstreamError, permanent: the field is named, its value is not."""
    try:
        return form.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "arguments"
        raise permanent("invalid_arguments", f"{tool}: {field}: {first['msg']}") from error
