"""Many nodes in one process: they join, renew with true inventories, and answer echo calls at once.

For the question what a call costs the *orchestrator* when there are 2 nodes, and when there are 100.
They speak the node protocol and read Celery's messages, but keep no journal and check no lease: what
a node costs is measured with a real one. Nodes whose pool is `stuck` take calls and never end them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from tasks.envelope import Delivery, open_sealed
from tasks.errors import OrchestratorDown
from tasks.invocation import Lane
from tasks.ledger_events import Finished, pack
from tasks.node import Held, JoinReply, JoinRequest, Offer, Phase, RenewRequest
from tasks.outcome import Outcome
from tasks.sealing import terms_id
from tasks.tool import ToolSpec
from worker.door import Door
from worker.seals import Seals

STUCK = "stuck"
ECHO = ToolSpec(
    server="probe",
    definition={"name": "echo", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
)
RESULT = '{"content":[{"type":"text","text":"%s"}]}' % ("x" * 100)
BLOCK_S = 2
"""Below the client's own timeout of an answer."""
TAKE_MAX_MSGS = 64
"""From one queue at a time, so that events of one turn go out as one entry, as a real node's do."""


@dataclass
class Simulated:
    """One node."""

    reply: JoinReply
    door: Door
    incarnation: str
    pool: str
    held: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Its keys."""
        self.seals = Seals(node=self.reply.node, pool=self.pool, wall_s=time.time, refused=print)
        self.seals.take(self.reply.seal)

    async def renew(self) -> None:
        """For ever, every two seconds."""
        heard = 0
        while True:
            inventory = tuple(Held(invocation=i, fence=f, phase=Phase.RUNNING) for i, f in self.held)
            request = RenewRequest(
                incarnation=self.incarnation, heard=heard, inventory=inventory, sealed_by=terms_id(self.reply.seal)
            )
            try:
                heard = (await self.door.renew(request)).number
            except OrchestratorDown as error:
                print(error.message, file=sys.stderr)
            await asyncio.sleep(self.reply.renew_every_s)


async def join(url: str, token: str, *, name: str, pool: str, slots: int) -> Simulated:
    """One node joins."""
    door, incarnation = Door(url), secrets.token_hex(8)
    door.token = token
    offer = Offer(name=name, pool=pool, slots={Lane.TOOLS: slots}, tools=(ECHO,), capabilities=frozenset({"probe"}))
    return Simulated(
        await door.join(JoinRequest(incarnation=incarnation, offer=offer, seals=True)), door, incarnation, pool
    )


async def serve(nodes: list[Simulated], redis_url: str) -> None:
    """Take deliveries of all of them over one connection, answer, report."""
    owners = {queue: node for node in nodes for queue in node.reply.queues}
    async with Redis.from_url(redis_url) as redis:
        while True:
            popped: Any = await redis.blmpop(BLOCK_S, len(owners), *owners, direction="RIGHT", count=TAKE_MAX_MSGS)
            if not popped:
                continue
            queue, messages = popped
            node = owners[queue.decode()]
            deliveries = [_delivery(message, node) for message in messages]
            if node.pool == STUCK:
                node.held |= {(delivery.invocation, delivery.fence) for delivery in deliveries}
                continue
            events = [_finished(delivery) for delivery in deliveries]
            field, value = node.seals.event(pack(list(events)))
            await redis.xadd(node.reply.events_stream, {field: value})


def _delivery(message: bytes, node: Simulated) -> Delivery:
    body, mac = json.loads(base64.b64decode(json.loads(message)["body"]))[0]
    opener = node.seals.deliveries
    if opener is not None and opener.is_sealed(mac):
        return opener.open(body, mac).delivery
    return open_sealed(body, mac, bytes.fromhex(node.reply.delivery_key)).delivery


def _finished(delivery: Delivery) -> Finished:
    now = time.time()
    return Finished(delivery.invocation, delivery.fence, now, now, Outcome("succeeded", RESULT))


async def main(argv: list[str]) -> None:
    """Join them all, say `ready`, serve until killed."""
    words = argparse.ArgumentParser()
    words.add_argument("--nodes", type=int, default=2)
    words.add_argument("--slots", type=int, default=64)
    words.add_argument("--stuck", action="store_true", help="one more node in the pool `stuck`, with one slot")
    given = words.parse_args(argv)
    url, token = os.environ["BENCH_FLEET_URL"], os.environ["BENCH_JOIN_TOKEN"]
    wanted = [(f"sim-{number}", "bench", given.slots) for number in range(1, given.nodes + 1)]
    wanted += [("stuck-1", STUCK, 1)] if given.stuck else []
    nodes = [await join(url, token, name=name, pool=pool, slots=slots) for name, pool, slots in wanted]
    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(node.renew())
        group.create_task(serve(nodes, nodes[0].reply.redis_url))
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
