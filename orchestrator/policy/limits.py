"""Rates and quotas: how much a client may ask for, whatever the policies permit. Pure, but for the buckets.

Only the leader answers requests, so what it counts is counted across all replicas. A new leader begins with full
buckets; what was used today it reads from the ledger.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from tasks.errors import Retryable
from tasks.invocation import Principal

BUCKETS_MAX = 50_000
"""Of clients seen lately; the one not seen for longest is forgotten, which fills it: about 10 MB."""


class Per(StrEnum):
    """Whose calls a rate counts together."""

    PRINCIPAL = "principal"
    TENANT = "tenant"
    TOOL = "tool"
    """All clients of one tool."""
    PRINCIPAL_TOOL = "principal+tool"


class RateLimited(Retryable):
    """Too many calls in a short time."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, name: str, calls_per_s: float, wait_s: float) -> None:
        super().__init__(f"limit {name!r} is {calls_per_s:g} calls a second; call again in {wait_s:.1f} s")
        self.retry_after_s = max(1, round(wait_s + 0.5))


class QuotaSpent(Retryable):
    """A tenant or project used up what it may."""

    code = "quota_spent"
    http_status = 429

    def __init__(self, name: str, what: str, used: float, limit: float, wait_s: float) -> None:
        until = "when one of them ended" if wait_s < SHORT_S else f"in {wait_s / 3600:.1f} h, when the day (UTC) ends"
        super().__init__(f"quota {name!r}: {used:,g} of {limit:,g} {what} are used; call again {until}")
        self.retry_after_s = max(1, round(wait_s))


SHORT_S = 60.0


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls a second, and some at once.

    Attributes:
        burst: calls at once after a silence.
        tools: patterns such as `git.*`; none: all tools.
        tenants, roles: whom it is for; none: everybody.
    """

    name: str
    per: Per
    calls_per_s: float
    burst: float
    tools: tuple[str, ...] = ()
    tenants: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()

    def key(self, by: Principal, tool: str) -> tuple[str, ...] | None:
        """Whose bucket a call takes from; None where this rate is not about it."""
        if self.tools and not any(fnmatchcase(tool, pattern) for pattern in self.tools):
            return None
        if (self.tenants and by.tenant not in self.tenants) or (self.roles and not self.roles & by.roles):
            return None
        parts = {
            Per.PRINCIPAL: (by.tenant, by.id),
            Per.TENANT: (by.tenant,),
            Per.TOOL: (tool,),
            Per.PRINCIPAL_TOOL: (by.tenant, by.id, tool),
        }
        return (self.name, *parts[self.per])


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant, or one project of it, may use. None: as much as it likes.

    Attributes:
        project: of the tenant; None: all of its calls together.
        calls_per_day, tokens_per_day, usd_per_day: from midnight to midnight, UTC.
        runs: of agents, that wait or run at once.
    """

    name: str
    tenant: str
    project: str | None = None
    calls_per_day: int | None = None
    tokens_per_day: int | None = None
    usd_per_day: float | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """All of them."""

    rates: tuple[Rate, ...] = ()
    quotas: tuple[Quota, ...] = ()


class Buckets:
    """Token buckets. Source: the token bucket of RFC 2697, section 3, with one rate."""

    def __init__(self) -> None:
        self._level: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()

    def take(self, rates: Iterable[Rate], by: Principal, tools: Iterable[str], now_s: float) -> None:
        """One token for each call and each rate that is about it: all, or none.

        Args:
            rates: to be kept.
            by: who calls.
            tools: of each call.
            now_s: monotonic clock.

        Raises:
            RateLimited: a bucket has too few.
        """
        wanted: dict[tuple[str, ...], tuple[Rate, float]] = {}
        for tool in tools:
            for rate in rates:
                key = rate.key(by, tool)
                if key is not None:
                    wanted[key] = (rate, wanted.get(key, (rate, 0.0))[1] + 1.0)
        levels = {key: self._now(key, rate, now_s) for key, (rate, _) in wanted.items()}
        for key, (rate, count) in wanted.items():
            # More at once than a bucket ever holds is let through when it is full, and owed.
            if levels[key] < min(count, rate.burst):
                raise RateLimited(
                    rate.name, rate.calls_per_s, (min(count, rate.burst) - levels[key]) / rate.calls_per_s
                )
        for key, (_, count) in wanted.items():
            self._level[key] = (levels[key] - count, now_s)
            self._level.move_to_end(key)
        while len(self._level) > BUCKETS_MAX:
            self._level.popitem(last=False)

    def _now(self, key: tuple[str, ...], rate: Rate, now_s: float) -> float:
        level, at_s = self._level.get(key, (rate.burst, now_s))
        return min(rate.burst, level + (now_s - at_s) * rate.calls_per_s)


@dataclass(slots=True)
class Used:
    """By a tenant or a project of it: today, and at this moment."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    runs: int = 0


Owner = tuple[str, str | None]


@dataclass(slots=True)
class Usage:
    """What was used, by tenant and project. `None` as project: of no project."""

    by: dict[Owner, Used] = field(default_factory=dict)

    def of(self, quota: Quota) -> Used:
        """Of what the quota is about."""
        if quota.project is not None:
            return self.by.get((quota.tenant, quota.project), Used())
        total = Used()
        for (tenant, _), used in self.by.items():
            if tenant == quota.tenant:
                total.calls += used.calls
                total.tokens += used.tokens
                total.usd += used.usd
                total.runs += used.runs
        return total


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a request, as quotas see it."""

    project: str | None
    is_run: bool
    """Of an agent."""


def check(quotas: Iterable[Quota], usage: Usage, tenant: str, asked: Sequence[Asked], *, day_left_s: float) -> None:
    """Whether so many more calls are within every quota about them, all together.

    Raises:
        QuotaSpent: naming the first that is not.
    """
    for quota in quotas:
        ours = [one for one in asked if quota.tenant == tenant and quota.project in {None, one.project}]
        if not ours:
            continue
        used, runs = usage.of(quota), sum(one.is_run for one in ours)
        if quota.calls_per_day is not None and used.calls + len(ours) > quota.calls_per_day:
            raise QuotaSpent(quota.name, "calls a day", used.calls, quota.calls_per_day, day_left_s)
        if runs and quota.runs is not None and used.runs + runs > quota.runs:
            raise QuotaSpent(quota.name, "runs of agents at once", used.runs, quota.runs, 5.0)
        if runs and quota.tokens_per_day is not None and used.tokens >= quota.tokens_per_day:
            raise QuotaSpent(quota.name, "tokens a day", used.tokens, quota.tokens_per_day, day_left_s)
        if runs and quota.usd_per_day is not None and used.usd >= quota.usd_per_day:
            raise QuotaSpent(quota.name, "USD a day", used.usd, quota.usd_per_day, day_left_s)
