"""The real orchestrator, or the real node, that dies by SIGKILL at a named step, and is started again.

    python dying.py FOLDER orchestrator serve
    python dying.py FOLDER node run --name n1 …

A step is armed by a file `<step>.armed`: how many calls must have arrived there, and how their ids begin. The
process renames it to `<step>.reached` and kills itself, so whoever comes next lives. Arrivals before the last
stand still at the step. The parent imports the program once and forks: a start costs a tenth of a second,
as nothing of it has run before the fork. Refuses to know what should come of it: test_steps.py does.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

AGAIN_AFTER_S = 0.1
"""A program that ends at once is not started in a hot loop."""
Calls = Callable[..., Sequence[str] | None]
"""The ids of the calls that an arrival stands for, from the wrapped function's arguments; None: of no one call."""


class Steps:
    """Who arrives where, in one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrived: Counter[str] = Counter()

    def at(self, step: str, ids: Sequence[str] | None = None) -> bool:
        """True where the step is armed and others are still awaited: stand still. Dies with the last.

        Args:
            step: where we are.
            ids: of the calls that are here; None where the step is not of single calls, and counts once.
        """
        armed = self._folder / f"{step}.armed"
        try:
            wanted, _, whose = armed.read_text().partition(" ")
        except FileNotFoundError:
            return False
        here = 1 if ids is None else sum(one.startswith(whose) for one in ids)
        self._arrived[step] += here
        if self._arrived[step] >= int(wanted):
            armed.rename(self._folder / f"{step}.reached")
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # the signal is on its way: nothing more may happen here
        return here > 0

    def wrap(self, owner: Any, name: str, *, before: str = "", after: str = "", calls: Calls | None = None) -> None:
        """Put a step before, or after, a function or coroutine of a class."""
        real = getattr(owner, name)
        stepping = self._coroutine if inspect.iscoroutinefunction(real) else self._function
        setattr(owner, name, stepping(real, before, after, calls or _nobody))

    def _coroutine(
        self, real: Callable[..., Awaitable[Any]], before: str, after: str, calls: Calls
    ) -> Callable[..., Awaitable[Any]]:
        """After the call nothing stands still: what comes after it may have to let others through."""

        async def stepped(*args: Any, **kwargs: Any) -> Any:
            ids = calls(*args, **kwargs)
            if before and self.at(before, ids):
                await asyncio.Event().wait()
            answer = await real(*args, **kwargs)
            if after:
                self.at(after, ids)
            return answer

        return stepped

    def _function(self, real: Callable[..., Any], before: str, after: str, calls: Calls) -> Callable[..., Any]:
        """A plain function cannot stand still: what arrives too early is left undone, and its process dies soon."""

        def stepped(*args: Any, **kwargs: Any) -> Any:
            ids = calls(*args, **kwargs)
            if before and self.at(before, ids):
                return None
            answer = real(*args, **kwargs)
            if after:
                self.at(after, ids)
            return answer

        return stepped


def orchestrator(steps: Steps) -> Callable[[], None]:
    """Its steps, and its command."""
    from orchestrator.bootstrap import SWITCH_INTERVAL_S
    from orchestrator.cli.main import main
    from orchestrator.dispatch.send import Sender
    from orchestrator.ledger.ledger import Ledger
    from orchestrator.registry.desk import NodeDesk
    from orchestrator.settling import streams
    from orchestrator.settling.settler import Settler

    assert SWITCH_INTERVAL_S, "imported before the fork: `serve` would import it in every child"
    for module in ("celery.app.amqp", "kombu.transport.redis"):
        importlib.import_module(module)  # the first publish would import them, longer than a renewal takes
    _wrap_commits(steps)
    streams.TRIM_EVERY_ENTRIES = 1  # else a stream is trimmed once in 64 entries, and no table is that long
    steps.wrap(Sender, "_publish", after="published")
    steps.wrap(NodeDesk, "restore", before="epoch-taken")
    steps.wrap(NodeDesk, "renew", before="renewal-heard", after="renewal-taken")
    steps.wrap(NodeDesk, "join", before="join-heard", after="join-taken")
    steps.wrap(
        NodeDesk, "_take_back", before="return-heard", after="return-taken", calls=lambda _desk, _name, refs: _ids(refs)
    )
    steps.wrap(NodeDesk, "leave", before="leave-heard")
    steps.wrap(Ledger, "forget_node", before="leave-taken", after="node-forgotten")
    steps.wrap(
        Settler, "finished", before="outcome-read", calls=lambda _settler, told: _ids(event for _node, event in told)
    )
    _wrap_said(steps, streams.NodeStreams)
    steps.wrap(
        streams.NodeStreams, "cancel", before="cancel-not-sent", calls=lambda _streams, invocation, *_: [invocation]
    )
    return main


def node(steps: Steps) -> Callable[[], None]:
    """Its steps, and its command."""
    from worker.bridge import preload
    from worker.cli import main
    from worker.execute import Executor
    from worker.journal import Journal
    from worker.membership import Membership
    from worker.reporter import Reporter
    from worker.unsettled import Unsettled
    from worker.upstreams.upstreams import Upstreams

    preload()
    steps.wrap(Journal, "adopt", before="joined-not-adopted")
    steps.wrap(Membership, "_granted", before="lease-granted")
    steps.wrap(Executor, "deliver", before="received")
    steps.wrap(Journal, "_write", before="start-not-journaled", calls=_starts)
    steps.wrap(Upstreams, "call", before="start-journaled", calls=lambda *_, invocation, **__: [invocation])
    steps.wrap(Executor, "_end", before="tool-ran", calls=lambda _executor, work, _outcome: [work.ref[0]])
    steps.wrap(Unsettled, "_report", before="outcome-journaled", calls=lambda _unsettled, ref, _event: [ref[0]])
    steps.wrap(Reporter, "_send", after="outcome-reported", calls=lambda _reporter, batch: _outcomes(batch))
    steps.wrap(Executor, "settled", before="settled-heard", calls=lambda _executor, refs: [ref[0] for ref in refs])
    steps.wrap(Executor, "hand_back", after="handed-back")
    return main


def _wrap_commits(steps: Steps) -> None:
    """`<kind>-before-commit` and `<kind>-after-commit`: of the group in which an operation of that kind is."""
    from orchestrator.ledger.commit import GroupCommit
    from orchestrator.ledger.database import Session

    run_kinds, commit = GroupCommit._run_kinds, Session.commit
    kinds: list[str] = []

    def noting(writer: GroupCommit, tx: Any, ops: list[Any]) -> None:
        kinds[:] = sorted({op.kind.name for op in ops})
        run_kinds(writer, tx, ops)

    def dying(session: Session) -> None:
        for kind in kinds:
            steps.at(f"{kind}-before-commit")
        commit(session)
        for kind in kinds:
            steps.at(f"{kind}-after-commit")

    GroupCommit._run_kinds, Session.commit = noting, dying  # type: ignore[method-assign]


def _wrap_said(steps: Steps, streams: Any) -> None:
    """Before *settled* is written to the control streams, with what is trimmed then, and after."""
    said = streams._said

    def saying(self: Any, unsaid: dict[str, list[Any]], trims: set[str]) -> Any:
        ids = _ids(ref for refs in unsaid.values() for ref in refs)
        steps.at("settled-not-said", ids)
        pipeline = said(self, unsaid, trims)
        execute = pipeline.execute

        async def executed() -> None:
            await execute()
            steps.at("settled-said", ids)

        pipeline.execute = executed
        return pipeline

    streams._said = saying


def _nobody(*_args: Any, **_kwargs: Any) -> None:
    return None


def _ids(refs: Iterable[Any]) -> list[str]:
    return [ref.invocation for ref in refs]


def _starts(journal: Any) -> list[str]:
    return [invocation for _entry, invocation, _fence, _at, finished in journal._inserts if finished is None]


def _outcomes(batch: list[bytes]) -> list[str]:
    return [event["i"] for event in map(json.loads, batch) if event["t"] == "f"]


class Keeper:
    """Starts the program again whenever it ended, as an init system would."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._child = 0
        self._is_ending = False

    def keep(self) -> None:
        """Until SIGTERM, which the program gets too."""
        signal.signal(signal.SIGTERM, self._end)
        while not self._is_ending:
            assert threading.active_count() == 1, "a fork would leave threads behind"
            self._child = os.fork()
            if self._child == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._run()
                return
            os.waitpid(self._child, 0)
            time.sleep(AGAIN_AFTER_S)

    def _end(self, number: int, _frame: object) -> None:
        self._is_ending = True
        if self._child:
            os.kill(self._child, number)


if __name__ == "__main__":
    place, side, *words = sys.argv[1:]
    program = {"orchestrator": orchestrator, "node": node}[side](Steps(Path(place)))
    sys.argv = [f"mcpfleet-{side}", *words]
    Keeper(program).keep()
