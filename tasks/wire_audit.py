"""The audit log on the wire: its rows, as `GET /v1/audit` gives them and as exports hold them, and its checkpoints."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AuditRowView(BaseModel):
    """One row. All its fields but `hash` are what `hash` covers; docs/audit.md says how."""

    model_config = ConfigDict(frozen=True)

    seq: int
    at_us: int = Field(description="microseconds since the epoch")
    epoch: int = Field(description="of the leader that wrote it")
    tenant: str
    actor: str
    credential: str = Field(description="which one was shown; never the credential itself")
    peer: str
    action: str
    target: str
    decision: str = Field(description="allowed, refused, failed or noted")
    reason: str
    trace_id: str
    details_json: str = Field(description="a small JSON object, as text, for it is hashed as it is")
    prev: str
    hash: str


class CheckpointView(BaseModel):
    """A signed checkpoint. `body_json` is what was signed."""

    model_config = ConfigDict(frozen=True)

    seq: int
    sealed: int = Field(description="rows up to this one may have been removed; 0: none")
    body_json: str
    signature: str = Field(description="Ed25519, base64")


class AuditKeyView(BaseModel):
    """The public key with which this orchestrator signs checkpoints."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="its JWK thumbprint, RFC 7638")
    pem: str


class AuditFindingView(BaseModel):
    """One thing that is wrong with the log."""

    model_config = ConfigDict(frozen=True)

    seq: int
    text: str
    do: str


class AuditReportView(BaseModel):
    """What a look at every row found, by the orchestrator's own key: `mcpfleet audit verify` can use kept ones."""

    model_config = ConfigDict(frozen=True)

    is_sound: bool
    rows: int
    first: int
    last: int
    signed_up_to: int = Field(description="the newest row that a good signature agrees with; 0: none")
    checkpoints: int = Field(description="with a good signature")
    findings: list[AuditFindingView]
    unnamed: int = Field(description="findings beyond those listed")


class AuditCheckView(BaseModel):
    """How a look at every row stands: the one that began last, whoever asked for it."""

    model_config = ConfigDict(frozen=True)

    is_running: bool
    began_at: float | None = Field(
        description="seconds since the epoch; null: nobody asked since this orchestrator leads"
    )
    ended_at: float | None
    rows: int = Field(description="looked at so far")
    report: AuditReportView | None = Field(description="what was found; null until it has ended")
    error: str = Field(description="why it did not come to its end; empty where it did, or goes on")
