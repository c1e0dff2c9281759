"""Rolling upgrades: what an older process said is understood, and what a newer one adds is passed over.

`recorded/wire-v1.json` was written by the first version that had this wire. It is never written anew: a
change that breaks it needs a new wire version, and a release that speaks both.
"""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tasks.envelope import open_sealed
from tasks.invocation import Lane
from tasks.ledger_events import Finished, Progress, Started, unpack
from tasks.node import WIRE_VERSION, JoinRequest, Phase, RenewRequest
from tasks.outcome import Failure
from tasks.tool import OnNodeLoss, ToolPolicy

RECORDED = json.loads((Path(__file__).parent / "recorded" / "wire-v1.json").read_text())
KEY = bytes.fromhex(RECORDED["delivery"]["key"])


def _newer(form: Any) -> Any:
    """The same with a field that nobody knows yet, in every object."""
    if isinstance(form, list):
        return [_newer(each) for each in form]
    if isinstance(form, dict):
        is_map = set(form) <= {"tools", "agents", "rack"}  # of lanes or labels: their keys are data
        return {key: _newer(value) for key, value in form.items()} | ({} if is_map else {"from_the_future": 1})
    return form


@pytest.mark.parametrize("spoken", [RECORDED, _newer(RECORDED)], ids=["older", "newer"])
def test_a_join_is_understood(spoken: dict[str, Any]) -> None:
    """Fields that came later have what they meant before they were there."""
    join = JoinRequest.model_validate_json(json.dumps(spoken["join"]))
    (tool,) = join.offer.tools
    assert (join.wire_version, join.offer.name, join.offer.slots[Lane.TOOLS]) == (WIRE_VERSION, "a1", 8)
    assert (tool.name, tool.is_safe, tool.timeout_s, tool.on_node_loss) == ("shop.order", False, 60.0, OnNodeLoss.ASK)
    assert tool.policy.retry is not None
    assert tool.policy.retry.attempts == 2
    assert ([ref.fence for ref in join.interrupted], [ref.fence for ref in join.finished]) == ([1], [2])


@pytest.mark.parametrize("spoken", [RECORDED, _newer(RECORDED)], ids=["older", "newer"])
def test_a_renewal_is_understood(spoken: dict[str, Any]) -> None:
    """Its inventory above all."""
    renewal = RenewRequest.model_validate_json(json.dumps(spoken["renew"]))
    (held,) = renewal.inventory
    assert (held.invocation, held.fence, held.phase, renewal.heard) == ("i1", 3, Phase.RUNNING, 4)


@pytest.mark.parametrize("is_newer", [False, True])
def test_a_delivery_is_understood(is_newer: bool) -> None:
    """Sealed as it was sealed then."""
    body, mac = RECORDED["delivery"]["body"], RECORDED["delivery"]["mac"]
    if is_newer:
        body = json.dumps(json.loads(body) | {"from_the_future": 1}, separators=(",", ":"))
        mac = hmac.new(KEY, body.encode(), sha256).hexdigest()
    opened = open_sealed(body, mac, KEY)
    delivery = opened.delivery
    assert (delivery.fence, delivery.node, delivery.term, delivery.tool) == (3, "a1", 2, "shop.order")
    assert opened.arguments == {"n": 1}


@pytest.mark.parametrize("is_newer", [False, True])
def test_what_a_node_tells_is_understood(is_newer: bool) -> None:
    """Started, progress, finished."""
    forms = json.loads(RECORDED["events"])
    started, progress, finished = unpack(json.dumps(_newer(forms) if is_newer else forms).encode())
    assert started == Started("i1", 3, 100.0)
    assert progress == Progress("i1", 3, 1.0, 2.0, "half")
    assert isinstance(finished, Finished)
    assert finished.outcome.error is not None
    assert finished.outcome.error.failure is Failure.MAYBE_STARTED


def test_a_policy_that_is_misspelt_in_a_file_is_still_refused() -> None:
    """Lenient between machines, strict with people."""
    with pytest.raises(ValueError, match="is_saef"):
        ToolPolicy.model_validate({"is_saef": True}, extra="forbid")
