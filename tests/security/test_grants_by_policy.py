"""Grants under the fleet's real policies: what Cedar permits is granted, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.grants.decide import Ruling, question_of, terms_of
from orchestrator.guarding import CedarGrants
from orchestrator.policy.desk import PolicyDesk
from orchestrator.testing.guard import AGENT, PERSON, TYPES, asked
from tasks.invocation import Principal
from tasks.testing.clock import FakeClock

POLICY = """
@id("agents-read-orders")
permit(principal in Role::"agent", action == Action::"grant", resource == Resource::"SAP_API")
when { context.trust >= 70 && context.scope.contains("orders:read") && !context.scope.contains("orders:write") };
@id("nothing-risky")
forbid(principal, action == Action::"grant", resource) when { resource.risk > 70 };
@id("people-get-all")
permit(principal in Role::"operator", action == Action::"grant", resource);
"""


class NoUse:
    """Nothing was used."""

    async def used(self, since: float) -> list[object]:
        """Nothing."""
        del since
        return []


def _ruled(desk: PolicyDesk, by: Principal, kind: str, scope: list[str], trust: int) -> Ruling:
    terms = terms_of(asked(by.id, kind, scope), TYPES)
    return CedarGrants(desk).decide(question_of(terms, TYPES[kind], by, by.id, trust))


def _desk(folder: Path | None) -> PolicyDesk:
    return PolicyDesk(folder=folder, books=NoUse(), clock=FakeClock(), tool=lambda _: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("by", "kind", "scope", "trust", "rules"),
    [
        (AGENT, "SAP_API", ["orders:read"], 90, ("agents-read-orders",)),
        (AGENT, "SAP_API", ["orders:read"], 69, None),
        (AGENT, "SAP_API", ["orders:read", "orders:write"], 90, None),
        (AGENT, "EXTERNAL_SERVICE", ["get"], 90, None),
        (PERSON, "EXTERNAL_SERVICE", ["get"], 50, ("people-get-all",)),
        (PERSON, "FINANCIAL_API", ["payments:write"], 90, None),
    ],
)
def test_cedar_decides(  # noqa: PLR0917 - a table
    tmp_path: Path, by: Principal, kind: str, scope: list[str], trust: int, rules: tuple[str, ...] | None
) -> None:
    """By who asks, what, how far and from where; a forbid wins; the policy is named."""
    (tmp_path / "grants.cedar").write_text(POLICY)
    found = _ruled(_desk(tmp_path), by, kind, scope, trust)
    assert found.is_allowed == (rules is not None)
    assert found.errors == ()
    if rules is not None:
        assert found.rules == rules


def test_without_policies_nothing_is_granted() -> None:
    """Calls are free within one's tenant then; grants are not."""
    assert not _ruled(_desk(None), PERSON, "SAP_API", ["orders:read"], 90).is_allowed
