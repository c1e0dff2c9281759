"""The node protocol's paths and blobs."""

from __future__ import annotations

import hashlib

from orchestrator.api.settings import ApiSettings
from orchestrator.testing.doors import JOIN_TOKEN, NODE_TOKEN
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import door
from tasks.node import ClaimReply, JoinReply, Ref, RenewReply

JOIN = {
    "incarnation": "1",
    "offer": {
        "name": "a",
        "pool": "main",
        "slots": {"tools": 8},
        "tools": [{"server": "g", "definition": {"name": "x"}}],
    },
}
DATA = b"x" * 100_000


async def test_a_node_joins_renews_claims_and_leaves() -> None:
    """Every message of tasks/node.py passes the strict reader in the form its model writes."""
    async with door(FakeFleet(), token=JOIN_TOKEN) as client:
        answer = await client.post("/v1/nodes", json=JOIN)
        reply = JoinReply.model_validate_json(answer.content)
        client.headers["Authorization"] = f"Bearer {reply.node_token}"
        held = {"incarnation": "1", "inventory": [{"invocation": "i", "fence": 1, "phase": "running"}]}
        renewed = RenewReply.model_validate_json((await client.post("/v1/nodes/a/renewals", json=held)).content)
        assert renewed.granted
        claim = {"incarnation": "1", "claims": [{"invocation": "i", "fence": 2}]}
        granted = ClaimReply.model_validate_json((await client.post("/v1/nodes/a/claims", json=claim)).content)
        assert granted.granted == (Ref(invocation="i", fence=2),)
        assert (await client.post("/v1/nodes/a/leave", json={"incarnation": "1"})).status_code == 204
        assert (await client.post("/v1/nodes/a/leave", json={"incarnation": "1"})).status_code == 404


async def test_blobs_go_in_and_out_by_their_digest() -> None:
    """Bytes come back as they went; a wrong digest, an over-large or unknown blob is a problem."""
    digest = hashlib.sha256(DATA).hexdigest()
    async with door(token=NODE_TOKEN, settings=ApiSettings(blob_limit_bytes=len(DATA))) as client:
        assert (await client.get(f"/v1/blobs/{digest}")).status_code == 404
        stored = await client.put(f"/v1/blobs/{digest}", content=DATA)
        assert (stored.status_code, stored.json()) == (201, {"sha256": digest, "size_bytes": len(DATA)})
        fetched = await client.get(f"/v1/blobs/{digest}")
        assert fetched.content == DATA
        assert fetched.headers["content-length"] == str(len(DATA))
        wrong = await client.put(f"/v1/blobs/{digest}", content=b"other")
        assert (wrong.status_code, wrong.json()["code"]) == (422, "digest_mismatch")
        assert (await client.put(f"/v1/blobs/{digest}", content=DATA + b"x")).status_code == 413
        assert (await client.get("/v1/blobs/short")).status_code == 422
