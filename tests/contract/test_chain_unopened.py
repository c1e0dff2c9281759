"""What does not open ends, once, and says why; a node that reports it is answered, and others go on."""

from __future__ import annotations

from pathlib import Path

from orchestrator.happenings import Ended
from orchestrator.ledger.sealed import SealedLedger
from orchestrator.testing.protocol import SAFE, Story
from orchestrator.testing.secrets import new_ring
from tasks.invocation import Call, State
from tasks.outcome import Outcome

DONE = Outcome("succeeded", result_json="{}")


async def test_a_chain_ends_where_its_next_call_does_not_open(tmp_path: Path) -> None:
    """The key was removed while the first call ran: it succeeded, and is a dead letter; the other's chain goes on."""
    story = await Story.begin(tmp_path, keys=new_ring("k1"))
    ends: list[Ended] = []
    story.core.happenings.listen(lambda said: ends.append(said) if isinstance(said, Ended) else None)
    await story.join("a1")
    broken = await story.accept(SAFE, then=(Call(SAFE, arguments_json='{"to": "nobody"}'),))
    (first,) = await story.release()
    ledger = story.core.stores.ledger
    assert isinstance(ledger, SealedLedger)
    ledger.with_keys(new_ring("k2"), seals=True)  # a restart with another file
    whole = await story.accept(SAFE, then=(Call(SAFE),))
    (second,) = await story.release()
    assert await story.said("a1", first, DONE), "its node is answered, and says it no more"
    await story.finish("a1", second, DONE)
    assert [(await story.get(one.id)).state for one in (broken, whole)] == [State.SUCCEEDED, State.SUCCEEDED]
    dead, _ = await ledger.dead_letters(tenant=None)
    assert [(one.invocation_id, one.reason) for one in dead] == [(broken.id, "unopened")]
    assert dead[0].error is not None
    assert "MCPFLEET_KEY_FILE" in dead[0].error.message
    assert [(one.invocation_id, one.dead_reason) for one in ends] == [(broken.id, "unopened"), (whole.id, None)]
    assert len(await story.release()) == 1
    await story.end()


async def test_who_waits_hears_that_a_call_does_not_open(tmp_path: Path) -> None:
    """Its end is told like every other, once, with the reason; metrics and waiting clients live of that."""
    story = await Story.begin(tmp_path, keys=new_ring("k1"))
    ends: list[Ended] = []
    story.core.happenings.listen(lambda said: ends.append(said) if isinstance(said, Ended) else None)
    await story.join("a1")
    gone = await story.accept(SAFE)
    ledger = story.core.stores.ledger
    assert isinstance(ledger, SealedLedger)
    ledger.with_keys(new_ring("k2"), seals=True)
    assert await story.release() == []
    assert [(one.invocation_id, one.state, one.tool, one.dead_reason) for one in ends] == [
        (gone.id, State.FAILED, SAFE, "unopened")
    ]
    assert ends[0].outcome is not None
    assert ends[0].outcome.error is not None
    await story.core.doubts.resolve()
    assert await story.release() == []
    assert len(ends) == 1
    await story.end()
