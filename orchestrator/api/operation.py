"""One operation of the API, declared: its door, its document and its tests are made from this.

Owns `Operation` and what a handler is given (`Ask`). Refuses to know any path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from orchestrator.api.problems import InvalidBody, invalid
from orchestrator.api.reply import Reply, Stream
from orchestrator.api.trace import parent_of
from orchestrator.presented import Presented
from tasks.invocation import Principal
from tasks.scopes import Scope

NOBODY = Principal(id="anonymous")

M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class Ask:
    """One request, authenticated and parsed."""

    principal: Principal
    trace_id: str
    path: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    _body: BaseModel | None = None
    _query: BaseModel | None = None
    chunks: AsyncIterator[bytes] | None = None
    """The raw body, of an operation that takes a stream."""
    presented: Presented = field(default_factory=lambda: Presented(""))
    """The credentials themselves, for an operation that trades them for others."""

    def body(self, model: type[M]) -> M:
        """The body, of the model the operation declares."""
        assert isinstance(self._body, model)
        return self._body

    def query(self, model: type[M]) -> M:
        """The query, of the model the operation declares."""
        assert isinstance(self._query, model)
        return self._query

    def body_or_none(self) -> BaseModel | None:
        """The body, whatever model it is of."""
        return self._body

    def query_or_none(self) -> BaseModel | None:
        """The query, whatever model it is of."""
        return self._query

    def parent_in(self, trace_id: str) -> str | None:
        """The caller's span in this trace, where its `traceparent` says one."""
        return parent_of(self.headers, trace_id)

    def header(self, name: bytes) -> str | None:
        """A header's text; None when absent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


Handler = Callable[[Ask], Awaitable[Reply | Stream]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One documented status: a model, a list's item model, or a media type."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """A request header an operation reads."""

    name: str
    description: str
    max_chars: int


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path.

    Attributes:
        scope: what its caller must be allowed; None: anybody is, without a token.
        body: the JSON body's model.
        takes_stream: the body is raw bytes, handed over as they come.
        is_for_itself: the caller's id must be the path's `name` (a node speaks for itself only).
        errors: statuses it may answer besides those every operation may.
        headers: request headers it reads.
    """

    method: str
    path: str
    name: str
    scope: Scope | None
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    takes_stream: bool = False
    is_for_itself: bool = False
    errors: tuple[int, ...] = ()
    headers: tuple[Header, ...] = ()
    tag: str = "invocations"


def read_query(text: bytes, model: type[BaseModel] | None) -> BaseModel | None:
    """The query of a request. Unknown and repeated names are refused, lists excepted.

    Raises:
        InvalidBody: naming what is wrong.
    """
    if model is None:
        if text:
            raise InvalidBody([("query", "this path takes no query parameters")])
        return None
    if not text:
        return model()
    try:
        return model.model_validate(_gathered(text, model))
    except ValidationError as error:
        raise invalid(error) from None


def _gathered(text: bytes, model: type[BaseModel]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
        is_list = name in model.model_fields and "list" in str(model.model_fields[name].annotation)
        if is_list:
            found.setdefault(name, [])
            found[name].append(value)  # type: ignore[attr-defined]
        elif name in found:
            raise InvalidBody([(name, "given twice")])
        else:
            found[name] = value
    return found
