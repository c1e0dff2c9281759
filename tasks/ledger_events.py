"""What a node reports on its own Redis stream: started, progress, asked, resolved, finished.

One stream entry carries a list of events (field `e`), so that a busy node writes once per turn of
its loop and not once per call. Refuses to decide what an event changes: `orchestrator/ledger` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from tasks.approval import Question, Taken
from tasks.outcome import ErrorInfo, Failure, Outcome

FIELD = b"e"


@dataclass(frozen=True, slots=True)
class Started:
    """The tool was started. Sent only for calls that do not end at once; `Finished` repeats it."""

    invocation: str
    fence: int
    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A progress notification of the tool. Never stored; passed to whoever listens."""

    invocation: str
    fence: int
    progress: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """One attempt ended. Sent again until the orchestrator says that it is settled.

    `started_at` is None where the tool never started.
    """

    invocation: str
    fence: int
    ended_at: float
    started_at: float | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Asked:
    """The run waits for a person. Sent again until the orchestrator says that it is noted."""

    invocation: str
    fence: int
    question: Question


@dataclass(frozen=True, slots=True)
class Resolved:
    """What became of a question. Said again whenever its answer comes again."""

    invocation: str
    fence: int
    approval: str
    taken: Taken
    at: float


Event = Started | Progress | Asked | Resolved | Finished


def pack(events: list[Event]) -> bytes:
    """The value of one stream entry's field."""
    return orjson.dumps([_form(event) for event in events])


def unpack(value: bytes) -> list[Event]:
    """The events of one stream entry.

    Raises:
        ValueError, KeyError, TypeError: the bytes are not events; the entry is to be skipped.
    """
    return [_event(form) for form in orjson.loads(value)]


def _form(event: Event) -> dict[str, object]:
    match event:
        case Started():
            return {"t": "s", "i": event.invocation, "f": event.fence, "at": event.at}
        case Progress():
            return {
                "t": "p",
                "i": event.invocation,
                "f": event.fence,
                "n": event.progress,
                "of": event.total,
                "m": event.message,
            }
        case Asked():
            return {"t": "q", "i": event.invocation, "f": event.fence} | _question_form(event.question)
        case Resolved():
            said = {"id": event.approval, "how": event.taken, "at": event.at}
            return {"t": "a", "i": event.invocation, "f": event.fence} | said
        case Finished():
            return {
                "t": "f",
                "i": event.invocation,
                "f": event.fence,
                "at": event.ended_at,
                "from": event.started_at,
                "how": event.outcome.ending,
                "r": event.outcome.result_json,
                "b": event.outcome.result_blob,
                "x": _error_form(event.outcome.error),
            }


def _question_form(asked: Question) -> dict[str, object]:
    return {
        "id": asked.id,
        "tool": asked.tool,
        "args": asked.arguments_json,
        "sha": asked.arguments_sha256,
        "at": asked.asked_at,
        "till": asked.expires_at,
        "frees": asked.frees_slot,
    }


def _error_form(error: ErrorInfo | None) -> dict[str, object] | None:
    if error is None:
        return None
    return {"c": error.code, "m": error.message, "k": error.failure, "w": error.retry_after_s}


def _event(form: dict[str, object]) -> Event:
    kind, invocation, fence = form["t"], str(form["i"]), int(form["f"])  # type: ignore[call-overload]
    if kind == "f":
        return Finished(invocation, fence, form["at"], form["from"], _outcome(form))  # type: ignore[arg-type]
    if kind == "s":
        return Started(invocation, fence, form["at"])  # type: ignore[arg-type]
    if kind == "p":
        return Progress(invocation, fence, form["n"], form["of"], form["m"])  # type: ignore[arg-type]
    if kind == "q":
        return Asked(invocation, fence, _question(form))
    if kind == "a":
        return Resolved(invocation, fence, str(form["id"]), Taken(form["how"]), form["at"])  # type: ignore[arg-type]
    raise ValueError(f"unknown event kind {kind!r}")


def _question(form: dict[str, object]) -> Question:
    return Question(
        id=str(form["id"]),
        tool=str(form["tool"]),
        arguments_json=str(form["args"]),
        arguments_sha256=str(form["sha"]),
        asked_at=form["at"],  # type: ignore[arg-type]
        expires_at=form["till"],  # type: ignore[arg-type]
        frees_slot=bool(form["frees"]),
    )


def _outcome(form: dict[str, object]) -> Outcome:
    error = form["x"]
    info = None
    if isinstance(error, dict):
        info = ErrorInfo(error["c"], error["m"], Failure(error["k"]), error["w"])
    return Outcome(form["how"], form["r"], form["b"], info)  # type: ignore[arg-type]
