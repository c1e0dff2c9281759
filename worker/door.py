"""The orchestrator over HTTPS: join, renew, claim, leave, blobs. One method per request.

Owns URLs, tokens and the translation of HTTP failures. Refuses to retry: whoever calls knows for how
long it makes sense.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from tasks.errors import NotAllowed, OrchestratorDown, Permanent
from tasks.node import (
    RENEW_EVERY_S,
    CertificateReply,
    CertificateRequest,
    ClaimReply,
    ClaimRequest,
    EnrolReply,
    EnrolRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    RenewReply,
    RenewRequest,
    RunGrantReply,
    RunGrantRequest,
)
from tasks.secret_wire import SecretsReply, SecretsRequest

R = TypeVar("R", bound=BaseModel)
SERVER_ERROR = 500
DETAIL_CHARS = 300
ASKED_AGAIN = "it is asked again; MCPFLEET_NODE_ORCHESTRATOR_URL says where it is"
JOIN_ANSWER_S = 10.0
"""An orchestrator that is starting takes the connection and answers later. Who gave up sooner would leave a join behind
that is taken all the same, and the next one makes a term of its own. Short enough to try the next replica after it."""


class Refused(Permanent):
    """The orchestrator answered and said no."""

    code = "refused_by_orchestrator"

    def __init__(self, path: str, status: int, detail: str) -> None:
        super().__init__(f"the orchestrator refused {path} with {status}: {detail}")
        self.status = status


class Door:
    """One HTTP connection pool to the orchestrator, or to several replicas of it.

    Every method raises OrchestratorDown (asking again may help), NotAllowed or Refused. Asking again
    asks the next replica.
    """

    def __init__(
        self, urls: str, transport: httpx.AsyncBaseTransport | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        self._urls = deque(url.strip().rstrip("/") for url in urls.split(","))
        self.token = ""
        """To enrol and to join with, set by whoever has it; after the join, the incarnation's own."""
        self._node = ""
        # A renewal that takes longer than the time between two is as good as lost.
        self._http = httpx.AsyncClient(timeout=RENEW_EVERY_S, transport=transport, verify=context or True)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def enrol(self, name: str, request: EnrolRequest) -> EnrolReply:
        """With a one-time token."""
        return await self._post(f"/v1/enrolments/{name}", request, EnrolReply)

    async def certificate(self, csr: str) -> CertificateReply:
        """The next one, over a connection with the one at hand."""
        return await self._post(f"/v1/nodes/{self._node}/certificates", CertificateRequest(csr=csr), CertificateReply)

    async def join(self, request: JoinRequest) -> JoinReply:
        """With the fleet's join token or our credential; every later request carries the incarnation's own."""
        reply = await self._post("/v1/nodes", request, JoinReply, answer_s=JOIN_ANSWER_S)
        self.token, self._node = reply.node_token, reply.node
        return reply

    async def renew(self, request: RenewRequest) -> RenewReply:
        """The lease."""
        return await self._post(f"/v1/nodes/{self._node}/renewals", request, RenewReply)

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        """Late-bound deliveries."""
        return await self._post(f"/v1/nodes/{self._node}/claims", request, ClaimReply)

    async def ask_guard(self, request: RunGrantRequest) -> RunGrantReply:
        """AuthGuardian, for a run."""
        return await self._post(f"/v1/nodes/{self._node}/grants", request, RunGrantReply)

    async def leave(self, request: LeaveRequest) -> None:
        """The last word."""
        await self._send("POST", f"/v1/nodes/{self._node}/leave", request.model_dump_json().encode())

    async def secrets(self, request: SecretsRequest) -> SecretsReply:
        """Of a server that is about to start, or their versions."""
        return await self._post(f"/v1/nodes/{self._node}/secrets", request, SecretsReply)

    async def get_blob(self, sha256: str) -> bytes | None:
        """The bytes, or None where it does not exist."""
        try:
            return (await self._send("GET", f"/v1/blobs/{sha256}", None)).content
        except Refused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return None
            raise

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """Store."""
        await self._send("PUT", f"/v1/blobs/{sha256}", data, "application/octet-stream")

    async def _post(self, path: str, request: BaseModel, model: type[R], *, answer_s: float = RENEW_EVERY_S) -> R:
        response = await self._send("POST", path, request.model_dump_json().encode(), answer_s=answer_s)
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            raise Refused(path, response.status_code, f"its answer is not understood: {error}"[:DETAIL_CHARS]) from None

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: str = "application/json",
        *,
        answer_s: float = RENEW_EVERY_S,
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        if path.startswith("/v1/enrolments/") or path.endswith("/certificates"):
            headers["Connection"] = "close"  # what it answers is shown by connections that are made after it
        url = self._urls[0]
        try:
            within = httpx.Timeout(RENEW_EVERY_S, read=answer_s)
            response = await self._http.request(method, url + path, content=body, headers=headers, timeout=within)
        except httpx.HTTPError as error:
            self._turn_from(url)
            raise OrchestratorDown(url, str(error) or type(error).__name__, ASKED_AGAIN) from error
        status = response.status_code
        if status >= SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
            self._turn_from(url)
            raise OrchestratorDown(url, f"HTTP {status}", ASKED_AGAIN)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise NotAllowed(
                f"the orchestrator at {url} does not accept this node's token for {path}: {_detail(response)}"
            )
        if response.is_error:
            raise Refused(path, status, _detail(response))
        return response

    def _turn_from(self, url: str) -> None:
        """The next request goes to the next replica; requests under way at once turn once."""
        if self._urls[0] == url:
            self._urls.rotate(-1)


def _detail(response: httpx.Response) -> str:
    """Its own words (RFC 9457), or what there is."""
    try:
        return str(response.json()["detail"])[:DETAIL_CHARS]
    except (ValueError, KeyError, TypeError):
        return response.text[:DETAIL_CHARS]
