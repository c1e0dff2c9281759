"""What a tool answered, as a caller reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.errors import InvocationFailed
from tasks.invocation import State
from tasks.wire import InvocationView


@dataclass(frozen=True, slots=True)
class ToolResult:
    """An MCP CallToolResult.

    Attributes:
        content: the content blocks, as the tool sent them: text, image, audio, resource.
        structured: `structuredContent`; None where the tool sends none.
        is_error: the tool said that it failed.
        raw: the whole CallToolResult.
        invocation: what the fleet knows of the call.
    """

    content: list[dict[str, Any]]
    structured: dict[str, Any] | None
    is_error: bool
    raw: dict[str, Any]
    invocation: InvocationView

    @property
    def text(self) -> str:
        """All text blocks, joined by line breaks."""
        return "\n".join(block["text"] for block in self.content if block.get("type") == "text")

    @property
    def value(self) -> Any:  # noqa: ANN401 - whatever the tool structured
        """`structured` where there is one, else `text`, else the whole result: what a chain passes on."""
        if self.structured is not None:
            return self.structured
        return self.text if any(block.get("type") == "text" for block in self.content) else self.raw


@dataclass(frozen=True, slots=True)
class Progress:
    """One progress notification of the tool."""

    progress: float
    total: float | None
    message: str | None


def result_of(view: InvocationView, *, check: bool) -> ToolResult:
    """The result of an Invocation that ended.

    Args:
        view: as the orchestrator shows it.
        check: raise also where the tool did answer, but said `isError`.

    Raises:
        InvocationFailed: it ended badly.
    """
    raw = view.result
    if raw is None or (check and view.state is not State.SUCCEEDED):
        raise failure_of(view)
    return ToolResult(
        content=raw.get("content", []),
        structured=raw.get("structuredContent"),
        is_error=bool(raw.get("isError", False)),
        raw=raw,
        invocation=view,
    )


def failure_of(view: InvocationView) -> InvocationFailed:
    """Why it did not succeed."""
    if view.error is not None:
        return InvocationFailed(view.id, view.state, view.error.code, view.error.message)
    return InvocationFailed(view.id, view.state, view.state, f"{view.tool} was {view.state}")
