"""What a node reports on its own Redis stream: started, progress, asked, resolved, capsule, finished.

One stream entry carries a list of events (field `e`), so that a busy node writes once per turn of
its loop and not once per call. Refuses to decide what an event changes: `orchestrator/ledger` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from tasks.approval import Question, Taken
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.spend import Spent, pack_spent, unpack_spent

FIELD = b"e"


@dataclass(frozen=True, slots=True)
class Started:
    """The tool was started. Sent only for calls that do not end at once; `Finished` repeats it."""

    invocation: str
    fence: int
    at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A progress notification of the tool. Never stored; passed to whoever listens.

    Where `spent` is not empty it is about that alone: what the attempt used of models until now. That is
    stored, and passed to nobody: of a node that dies, it is all that will ever be known.
    """

    invocation: str
    fence: int
    progress: float
    total: float | None = None
    message: str | None = None
    spent: Spent = ()


@dataclass(frozen=True, slots=True)
class Saved:
    """The session of a running attempt is in the blob store, up to its last turn. Sent once: a later one says more.

    Only to an orchestrator that said a `capsule_limit_bytes` at join: an older one reads no entry with it.
    """

    invocation: str
    fence: int
    number: int
    """Grows from one to the next, also over attempts."""
    blob: str


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
    saved: tuple[int, str] | None = None
    """Number and blob of its last `Saved`, which is said once, and may be lost where the outcome is not."""


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


Event = Started | Progress | Saved | Asked | Resolved | Finished


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
                **_spent_form(event.spent),
            }
        case Saved():
            return {"t": "c", "i": event.invocation, "f": event.fence, "n": event.number, "b": event.blob}
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
                **_spent_form(event.outcome.spent),
                **({"c": event.saved} if event.saved is not None else {}),
            }


def _spent_form(spent: Spent) -> dict[str, object]:
    """Nothing, where nothing was spent: most calls."""
    return {"$": pack_spent(spent)} if spent else {}


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
        return Finished(invocation, fence, form["at"], form["from"], _outcome(form), _saved(form))  # type: ignore[arg-type]
    if kind == "s":
        return Started(invocation, fence, form["at"])  # type: ignore[arg-type]
    if kind == "p":
        return Progress(invocation, fence, form["n"], form["of"], form["m"], _spent(form))  # type: ignore[arg-type]
    if kind == "c":
        return Saved(invocation, fence, int(form["n"]), str(form["b"]))  # type: ignore[call-overload]
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
    return Outcome(form["how"], form["r"], form["b"], info, _spent(form))  # type: ignore[arg-type]


def _saved(form: dict[str, object]) -> tuple[int, str] | None:
    said = form.get("c")
    return (int(said[0]), str(said[1])) if isinstance(said, list) else None


def _spent(form: dict[str, object]) -> Spent:
    return unpack_spent(form["$"]) if "$" in form else ()
