"""Machines that are worker processes on this host: `mcpfleet-worker run`, each in a folder of its own.

Owns their records, logs and ends. A record is written before its process is started and found again by
pid and time of birth, or by a mark in the environment where the writer died in between. What an
orchestrator's environment holds reaches a machine only by name: it may hold credentials.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from orchestrator.autoscaler.cloud import minder, processes
from orchestrator.autoscaler.cloud.blocking import BlockingProvider
from orchestrator.autoscaler.cloud.errors import OrderRefused, OutOfCapacity, QuotaReached
from orchestrator.autoscaler.cloud.options import Count, Price, Span, read_options
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Power, Product, ProviderConfig
from orchestrator.autoscaler.cloud.records import Kept, RecordFolder, kept_of
from tasks.clock import Clock, SystemClock
from tasks.node import NAME_PATTERN

WORKER = (sys.executable, "-P", "-m", "worker.cli", "run")
"""-P: the working directory is not on the import path, so no stray `tasks/` is imported."""
INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|SSL_CERT_\w+|PYTHON\w+|_MCPFLEET_GUARD"
    r"|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy"
)
"""The last word of ours lets `mcpfleet up` find and end them after it was killed."""
ADDRESS = "127.0.0.1"
LOG, NODE = "log", "node"
LOG_LIMIT_BYTES = 16 * 1024 * 1024
KILL_AFTER_S = 5.0
"""The minder kills within `stop_s`; past that much more we do, and all that is left."""
FOLDERS_KEPT = 20
"""Of machines that are gone, for their logs."""


@dataclass(frozen=True, slots=True)
class LocalProcessOptions:
    """`[providers.<name>]` with `kind = "local-process"`.

    Attributes:
        command: what a machine runs.
        environ: variables for every machine; those of an order win.
        inherit: names of variables of the orchestrator that machines get, beside paths, locale and proxies.
        max_machines: as an account's limit; None: none.
        stop_s: between SIGTERM and SIGKILL; longer than the nodes' `MCPFLEET_NODE_DRAIN_S`.
        price_eur_h: what a machine is reckoned at: this host is paid for anyway, but budgets can be tried here.
    """

    command: tuple[str, ...] = WORKER
    environ: Mapping[str, str] = field(default_factory=dict)
    inherit: tuple[str, ...] = ()
    max_machines: Count | None = None
    stop_s: Span = 60.0
    price_eur_h: Price = 0.0


@dataclass(frozen=True, slots=True)
class Started:
    """A machine.

    Attributes:
        pid: of its minder; None: the writer of this died before it knew.
        born: see `processes.birth`.
        ending_at: it was told to end.
        ended_at: it was seen to have ended, and nothing of it is left.
    """

    kept: Kept
    pid: int | None = None
    born: str = ""
    ending_at: float | None = None
    ended_at: float | None = None


class LocalProcessProvider(BlockingProvider):
    """Satisfies `CloudProvider`."""

    def __init__(self, config: ProviderConfig, options: LocalProcessOptions, clock: Clock) -> None:
        super().__init__(config.name, threads=1)  # they would wait for one lock anyway
        self._options = options
        self._clock = clock
        self._environ = {
            name: value
            for name, value in config.environ.items()
            if INHERITED.fullmatch(name) or name in options.inherit
        } | dict(options.environ)
        self._records = RecordFolder(config.name, config.state_dir.absolute(), Started)

    def _create(self, order: Order) -> Machine:
        self._check(order)
        with self._records.locked():
            known = self._settled()
            started = known.get(order.name)
            if started is not None and (started.kept.cluster, started.kept.claim) != (order.cluster, order.claim):
                raise OrderRefused(self._name, f"the name {order.name} belongs to another machine")
            if started is None:
                limit = self._options.max_machines
                if limit is not None and len(known) >= limit:
                    raise QuotaReached(self._name, f"max_machines = {limit}", is_ours=True)
                started = self._start(order)
            return _machine(started)

    def _check(self, order: Order) -> None:
        if not re.fullmatch(NAME_PATTERN, order.name):
            raise OrderRefused(self._name, f"{order.name!r} is no name of a node")
        if order.is_spot:
            raise OrderRefused(self._name, "it has no spot machines")
        if shutil.which(self._options.command[0]) is None:
            raise OrderRefused(self._name, f"its command {self._options.command[0]} is not there")

    def _start(self, order: Order) -> Started:
        """The record first: a process that nobody knows of would never be ended."""
        self._sweep_folders()
        home = self._records.folder / order.name
        started = Started(kept_of(order, self._clock.wall_s()))
        self._records.write(order.name, started)
        (home / minder.HEARD_OF).touch()
        ttl_s = max(0.0, order.expires_at - started.kept.created_at)
        words = (str(home), repr(order.expires_at), repr(ttl_s), repr(self._options.stop_s))
        environ = {"MCPFLEET_NODE_STATE_DIR": str(home / NODE)} | self._environ | dict(order.environ)
        environ[processes.MARK] = str(home)
        command = (sys.executable, "-I", "-S", minder.__file__, *words, *self._options.command)
        try:
            pid = processes.start(command, environ, home / LOG)
        except OSError as error:
            self._records.remove(order.name)
            raise OutOfCapacity(self._name, "process", error.strerror or str(error)) from error
        started = replace(started, pid=pid, born=processes.birth(pid))
        self._records.write(order.name, started)
        return started

    def _products(self) -> list[Product]:
        """This host."""
        cpus, memory_bytes = psutil.cpu_count() or 0, psutil.virtual_memory().total
        price = self._options.price_eur_h
        return [Product("", "", is_spot=False, price_eur_h=price, billing_s=1.0, cpus=cpus, memory_bytes=memory_bytes)]

    def _listed(self, cluster: str) -> list[Machine]:
        """Who asks for them keeps them from ending themselves."""
        with self._records.locked():
            ours = {name: each for name, each in self._settled().items() if each.kept.cluster == cluster}
            for name in ours:
                home = self._records.folder / name
                (home / minder.HEARD_OF).touch()
                _bound(home / LOG)
            return [_machine(each) for each in ours.values()]

    def _one(self, name: str) -> Machine | None:
        with self._records.locked():
            started = self._settled().get(name)
            return None if started is None else _machine(started)

    def _end(self, name: str) -> None:
        """SIGTERM the first time; SIGKILL where that does not end it in time."""
        with self._records.locked():
            started = self._settled().get(name)
            if started is None:
                return
            now_s = self._clock.wall_s()
            if started.ended_at is not None:
                self._records.remove(name)
            elif started.ending_at is None:
                self._records.write(name, replace(started, ending_at=now_s))
                processes.tell(started.pid or 0, signal.SIGTERM)
            elif now_s - started.ending_at > self._options.stop_s + KILL_AFTER_S:
                self._kill(name)

    def _settled(self) -> dict[str, Started]:
        """All records, after a look at their processes; those that were to end and have are gone."""
        return {
            name: looked
            for name, started in self._records.all().items()
            if (looked := self._looked_at(name, started)) is not None
        }

    def _looked_at(self, name: str, started: Started) -> Started | None:
        looked = started
        if looked.pid is None:  # whoever wrote this held the lock until it knew the pid, and died
            found = processes.marked(self._mark(name))
            if not found:
                self._records.remove(name)
                return None
            looked = replace(looked, pid=found[0], born=processes.birth(found[0]))
        if looked.ended_at is None and not processes.is_alive(looked.pid or 0, looked.born):
            self._kill(name)
            looked = replace(looked, ended_at=self._clock.wall_s())
        if looked.ended_at is not None and looked.ending_at is not None:
            self._records.remove(name)
            return None
        if looked != started:
            self._records.write(name, looked)
        return looked

    def _kill(self, name: str) -> None:
        for pid in processes.marked(self._mark(name)):
            processes.tell(pid, signal.SIGKILL)

    def _mark(self, name: str) -> str:
        return str(self._records.folder / name)

    def _sweep_folders(self) -> None:
        """Logs of the machines that ended last are kept."""
        known = self._records.all()
        old = [home for home in self._records.folder.iterdir() if home.is_dir() and home.name not in known]
        for home in sorted(old, key=lambda each: each.stat().st_mtime, reverse=True)[FOLDERS_KEPT:]:
            shutil.rmtree(home, ignore_errors=True)


def open_local_process(config: ProviderConfig) -> CloudProvider:
    """Kind `local-process`."""
    return LocalProcessProvider(config, read_options(LocalProcessOptions, config), SystemClock())


def _machine(started: Started) -> Machine:
    power = Power.RUNNING
    if started.ended_at is not None:
        power = Power.STOPPED
    elif started.ending_at is not None:
        power = Power.ENDING
    return started.kept.machine(started.kept.name, power, ADDRESS)


def _bound(log: Path) -> None:
    """Its process appends; what it writes between copy and cut is lost, as with logrotate's copytruncate."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        shutil.copyfile(log, log.with_name(f"{LOG}.1"))
        with log.open("r+b") as file:
            file.truncate(0)
