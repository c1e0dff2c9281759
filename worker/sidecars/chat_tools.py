"""The tools of a chat model beside `run`: `chat`, `generate_code`, `models`. One request each, no agent.

Owns their arguments and answers. Refuses to change a file unless a workspace is given.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from worker.sidecars import openai_chat_calls as calls
from worker.sidecars.bill import Bill
from worker.sidecars.openai_chat_backend import ChatEndpoint
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.run_arguments import Prompt, Text, parsed

CHAT, GENERATE_CODE, MODELS = "chat", "generate_code", "models"


class ChatArguments(BaseModel):
    """A prompt or a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: Prompt | None = Field(default=None, description="What is asked.")
    messages: tuple[dict[str, str], ...] = Field(default=(), description="In its place: objects of role and content.")
    model: Text | None = Field(default=None, description="Of the endpoint; the node's own where absent.")


class CodeArguments(BaseModel):
    """What is to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: Prompt = Field(description="What is to be written.")
    model: Text | None = Field(default=None, description="Of the endpoint; the node's own where absent.")
    apply: bool = Field(default=False, description="Write the files into a workspace of the call's project.")
    ref: Text | None = Field(default=None, description="Branch, tag or commit to begin from; with apply.")
    push: bool = Field(default=False, description="Push them as the branch agent/<run>; with apply.")


class NoArguments(BaseModel):
    """None."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_TOOLS: dict[str, tuple[type[BaseModel], str, bool]] = {
    CHAT: (ChatArguments, "Answers a prompt or a conversation.", True),
    GENERATE_CODE: (CodeArguments, "Writes whole files; into a project's workspace only where asked.", False),
    MODELS: (NoArguments, "The models that the endpoint knows.", True),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """Where `generate_code` is to write, and what becomes of it."""

    ref: str | None
    push: bool


class ChatTools:
    """Of one endpoint."""

    def __init__(self, endpoint: ChatEndpoint) -> None:
        self._endpoint = endpoint

    def definitions(self) -> tuple[dict[str, Any], ...]:
        """As MCP lists tools."""
        return tuple(
            {
                "name": name,
                "description": said,
                "inputSchema": {key: value for key, value in form.model_json_schema().items() if key != "title"},
                "annotations": {"readOnlyHint": is_safe, "idempotentHint": is_safe, "openWorldHint": True},
            }
            for name, (form, said, is_safe) in _TOOLS.items()
        )

    def wants_a_place(self, tool: str, arguments: dict[str, Any]) -> Applied | None:
        """Whether the call writes into a workspace. Raises UpstreamError, permanent: the arguments are wrong."""
        said = parsed(_TOOLS[tool][0], arguments, tool)
        return Applied(said.ref, said.push) if isinstance(said, CodeArguments) and said.apply else None

    async def call(
        self, tool: str, arguments: dict[str, Any], workspace: Path | None, bill: Bill
    ) -> dict[str, Any] | Trouble:
        """A CallToolResult, or why there is none."""
        said = parsed(_TOOLS[tool][0], arguments, tool)
        if isinstance(said, ChatArguments):
            asked = said.prompt or said.messages
            return _chatted(await calls.chat(self._endpoint, asked, model=said.model, bill=bill))
        if isinstance(said, CodeArguments):
            made = await calls.generate_code(
                self._endpoint, said.prompt, model=said.model, workspace=workspace, bill=bill
            )
            return made if isinstance(made, Trouble) else _result(made.notes, dataclasses.asdict(made))
        names = await calls.models(self._endpoint)
        return names if isinstance(names, Trouble) else _result("\n".join(names), {"models": list(names)})


def _chatted(answer: calls.Chatted | Trouble) -> dict[str, Any] | Trouble:
    return answer if isinstance(answer, Trouble) else _result(answer.text, dataclasses.asdict(answer))


def _result(text: str, structured: dict[str, Any]) -> dict[str, Any]:
    known = orjson.loads(orjson.dumps(structured))
    return {"content": [{"type": "text", "text": text}], "structuredContent": known, "isError": False}
