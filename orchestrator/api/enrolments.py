"""Enrolment's paths: an operator asks for a one-time token, the node trades it, an operator voids it."""

from __future__ import annotations

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Certificates, Enrolments
from orchestrator.api.reply import Reply, model
from orchestrator.identity.tokens import digest
from tasks.node import EnrolReply, EnrolRequest
from tasks.scale_wire import EnrolmentRequest, EnrolmentView
from tasks.scopes import Scope


class EnrolmentDoor:
    """Tokens and credentials of nodes."""

    def __init__(self, enrolments: Enrolments, certificates: Certificates) -> None:
        self._enrolments, self._certificates = enrolments, certificates

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("POST", "/v1/enrolments", "issue_enrolment", Scope.FLEET_WRITE,
                      "A one-time token for one node", self.issue,
                      {201: Answer("the token; it is shown once", EnrolmentView)},
                      body=EnrolmentRequest, errors=(409,), tag="enrolment"),
            Operation("POST", "/v1/enrolments/{name}", "enrol", Scope.NODE_ENROL,
                      "Trade the token for a credential of the node's own",
                      self.enrol, {200: Answer("the credential may join", EnrolReply)},
                      body=EnrolRequest, is_for_itself=True, errors=(409,), tag="enrolment"),
            Operation("DELETE", "/v1/enrolments/{name}", "revoke_enrolment", Scope.FLEET_WRITE,
                      "Void a node's token and credential, and end what is joined under its name", self.revoke,
                      {204: Answer("void")}, errors=(404,), tag="enrolment"),
        )  # fmt: skip

    async def issue(self, ask: Ask) -> Reply:
        """POST /v1/enrolments."""
        wanted = ask.body(EnrolmentRequest)
        return model(await self._enrolments.issue(wanted.name, wanted.pool, wanted.ttl_s), 201)

    async def enrol(self, ask: Ask) -> Reply:
        """POST /v1/enrolments/{name}."""
        wanted, name = ask.body(EnrolRequest), ask.path["name"]
        reply = await self._enrolments.enrol(name, digest(ask.presented.token), wanted.credential_digest)
        made = self._certificates.enrolled(name, wanted.csr)
        told = {} if made is None else {"certificate": made.certificate, "roots": made.roots}
        return model(reply.model_copy(update=told))

    async def revoke(self, ask: Ask) -> Reply:
        """DELETE /v1/enrolments/{name}."""
        self._enrolments.require(ask.path["name"])
        await self._enrolments.revoke(ask.path["name"])
        return Reply(b"", 204)
