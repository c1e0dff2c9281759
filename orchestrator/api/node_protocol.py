"""The node protocol's paths (tasks/node.py), and blobs. A node speaks for itself only."""

from __future__ import annotations

from functools import partial

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Blobs, Certificates, Enrolments, Nodes
from orchestrator.api.problems import InvalidBody
from orchestrator.api.reply import Reply, Stream, model
from tasks.errors import NotAllowed
from tasks.node import (
    CertificateReply,
    CertificateRequest,
    ClaimReply,
    ClaimRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    RenewReply,
    RenewRequest,
)
from tasks.scopes import Scope
from tasks.wire import BlobView

DIGEST_CHARS = 64
HEX = frozenset("0123456789abcdef")
MEDIA_TYPE = "application/octet-stream"


class NodeProtocol:
    """Join, renew, claim, leave."""

    def __init__(self, nodes: Nodes, enrolments: Enrolments, certificates: Certificates) -> None:
        self._nodes, self._enrolments, self._certificates = nodes, enrolments, certificates

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        path = "/v1/nodes/{name}"
        return (
            Operation("POST", path + "/renewals", "renew", Scope.NODE,
                      "Renew a node's lease, with its inventory", self.renew,
                      {200: Answer("the lease", RenewReply)}, body=RenewRequest, is_for_itself=True,
                      tag="node protocol"),
            Operation("POST", path + "/claims", "claim", Scope.NODE,
                      "Claim deliveries taken from the pool's queue", self.claim,
                      {200: Answer("what was granted", ClaimReply)}, body=ClaimRequest,
                      is_for_itself=True, tag="node protocol"),
            Operation("POST", "/v1/nodes", "join", Scope.NODE_JOIN,
                      "Join the fleet", self.join,
                      {200: Answer("everything a node needs", JoinReply)}, body=JoinRequest,
                      errors=(409,), tag="node protocol"),
            Operation("POST", path + "/certificates", "renew_certificate", Scope.NODE,
                      "Trade a node's certificate for its next", self.certificate,
                      {200: Answer("the next", CertificateReply)}, body=CertificateRequest, is_for_itself=True,
                      errors=(409,), tag="node protocol"),
            Operation("POST", path + "/leave", "leave", Scope.NODE,
                      "Leave the fleet", self.leave, {204: Answer("gone")}, body=LeaveRequest, is_for_itself=True,
                      errors=(404, 409), tag="node protocol"),
        )  # fmt: skip

    async def join(self, ask: Ask) -> Reply:
        """POST /v1/nodes."""
        request = ask.body(JoinRequest)
        check = partial(self._enrolments.check, ask.principal, request.offer.name, request.offer.pool)
        return model(await self._nodes.join(request, check, ask.presented.certificate))

    async def certificate(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/certificates."""
        csr = ask.body(CertificateRequest).csr
        shown = ask.presented
        return model(await self._certificates.renew(ask.path["name"], shown.token, csr, shown.certificate))

    async def renew(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/renewals."""
        return model(await self._nodes.renew(ask.path["name"], ask.body(RenewRequest)))

    async def claim(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/claims."""
        return model(await self._nodes.claim(ask.path["name"], ask.body(ClaimRequest)))

    async def leave(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/leave."""
        await self._nodes.leave(ask.path["name"], ask.body(LeaveRequest))
        return Reply(b"", 204)


class BlobDoor:
    """Payloads over the inline limit, by their SHA-256."""

    def __init__(self, blobs: Blobs, limit_bytes: int) -> None:
        self._blobs, self._limit_bytes = blobs, limit_bytes

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("PUT", "/v1/blobs/{sha256}", "put_blob", Scope.BLOBS,
                      "Keep a blob under its own digest", self.put,
                      {201: Answer("stored, durably", BlobView)}, takes_stream=True, tag="blobs"),
            Operation("GET", "/v1/blobs/{sha256}", "get_blob", Scope.BLOBS,
                      "Fetch a blob", self.get,
                      {200: Answer("its bytes", media_type=MEDIA_TYPE)}, errors=(404,), tag="blobs"),
        )  # fmt: skip

    async def put(self, ask: Ask) -> Reply:
        """PUT /v1/blobs/{sha256}."""
        digest = _digest(ask)
        if ask.chunks is None:
            raise NotAllowed("a blob's bytes come with it")
        size = await self._blobs.store(digest, ask.chunks, limit_bytes=self._limit_bytes)
        return model(BlobView(sha256=digest, size_bytes=size), 201)

    async def get(self, ask: Ask) -> Stream:
        """GET /v1/blobs/{sha256}."""
        digest = _digest(ask)
        size = await self._blobs.size_bytes(digest)
        return Stream(
            self._blobs.stream(digest), MEDIA_TYPE.encode(), headers=((b"content-length", str(size).encode()),)
        )


def _digest(ask: Ask) -> str:
    digest = ask.path["sha256"]
    if len(digest) != DIGEST_CHARS or not set(digest) <= HEX:
        raise InvalidBody([("sha256", "must be 64 lower-case hex digits")])
    return digest
