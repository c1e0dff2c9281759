"""The parts that an orchestrator is made of, under their names. `assembly.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery
from redis.asyncio import Redis

from orchestrator.approvals.desk import Approvals
from orchestrator.audit.log import AuditLog
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.erasure import Erasure
from orchestrator.grants.guardian import Guardian
from orchestrator.happenings import Happenings
from orchestrator.health.circuits import Circuits
from orchestrator.identity.enrolment import Enroller
from orchestrator.identity.keys import Keys
from orchestrator.intake.check import Intake
from orchestrator.intake.watch import Watch
from orchestrator.leader import Proof
from orchestrator.ledger.erase import ErasedRows
from orchestrator.ledger.ledger import Ledger
from orchestrator.policy.desk import PolicyDesk
from orchestrator.pools import Policies
from orchestrator.redis_users import RedisUsers
from orchestrator.registry.desk import NodeDesk
from orchestrator.registry.roster import Roster
from orchestrator.secrets.desk import Secrets
from orchestrator.secrets.keyring import KeyRing
from orchestrator.settling.doubts import Doubts
from orchestrator.settling.settler import Settler
from orchestrator.settling.streams import NodeStreams
from tasks.clock import Clock


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything outside this process, and time."""

    ledger: Ledger
    redis: Redis
    celery: Celery
    blobs: DiskBlobs
    clock: Clock
    keys: KeyRing | None = None


@dataclass(frozen=True, slots=True)
class Core:
    """What decides."""

    stores: Stores
    policies: Policies
    happenings: Happenings
    watch: Watch
    roster: Roster
    attempts: OpenAttempts
    dispatcher: Dispatcher
    intake: Intake
    settler: Settler
    streams: NodeStreams
    desk: NodeDesk
    doubts: Doubts
    circuits: Circuits
    proof: Proof
    enroller: Enroller
    claims: ClaimBook
    pool_book: PoolBook
    approvals: Approvals
    keys: Keys
    policy: PolicyDesk
    secrets: Secrets
    audit: AuditLog
    redis_users: RedisUsers
    guardian: Guardian

    def erasure(self) -> Erasure:
        """What forgets a project."""
        stores = self.stores
        return Erasure(books=ErasedRows(stores.ledger), blobs=stores.blobs, secrets=self.secrets, clock=stores.clock)
