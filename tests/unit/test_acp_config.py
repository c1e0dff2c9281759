"""How an ACP agent is told of its model, what it is given, and what the servers file may say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SettingsError
from worker.sidecars.acp_config import BASE_URL, AcpSettings, filled
from worker.sidecars.meter import StreamMeter
from worker.sidecars.sidecar import Usage
from worker.sidecars.sidecars_file import parse_sidecars

GOOD: dict[str, Any] = {"kind": "acp", "command": ["agent"], "url": "http://127.0.0.1:1/v1", "api": "openai"}


def test_templates_are_filled_and_other_braces_left_alone() -> None:
    """In words, values and names, at any depth; text of a file is no format string."""
    settings = AcpSettings(
        ("agent", "--model={model}"),
        Path("egress.sock"),
        environ={"URL": "{base_url}/v1"},
        files={"a.json": {"{model}": ["{token}", 7, None]}, "b.toml": "x = {y = '{token}'}"},
    )
    ours = filled(settings, token="t", model="m")
    assert (ours.command, ours.environ) == (("agent", "--model=m"), {"URL": f"{BASE_URL}/v1"})
    assert json.loads(ours.files["a.json"]) == {"m": ["t", 7, None]}
    assert ours.files["b.toml"] == "x = {y = 't'}"
    assert settings.takes_model
    assert not AcpSettings(("agent",), Path("egress.sock")).takes_model


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"command": []}, "command"),
        ({"api": "gemini"}, "api"),
        ({"files": {"/etc/passwd": ""}}, "relative to HOME"),
        ({"files": {"a/../../b": ""}}, "relative to HOME"),
        ({"sessions": ["."]}, "relative to HOME"),
        ({"read_only": {"/srv/agent": "/usr/bin"}}, "below one of"),
        ({"read_only": {"/srv/agent": "/opt/../etc"}}, "below one of"),
    ],
)
def test_an_entry_that_leads_out_is_refused_with_its_key(more: dict[str, Any], said: str) -> None:
    """The start ends with the name of what is wrong."""
    assert parse_sidecars({"agent": GOOD}, "file")["agent"].kind == "acp"
    with pytest.raises(SettingsError, match=said):
        parse_sidecars({"agent": GOOD | more}, "file")


def test_the_meter_reads_a_chat_completion() -> None:
    """Streaming or whole; what was cached is part of the prompt's tokens there."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 400}}
    last = b"data: " + json.dumps({"model": "glm-5", "choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"
    streaming, whole = StreamMeter(is_stream=True), StreamMeter(is_stream=False)
    streaming.feed(b'data: {"model": "glm-5", "choices": [{"delta": {}}], "usage": null}\n\n')
    streaming.feed(last[:40])
    streaming.feed(last[40:])
    whole.feed(json.dumps({"model": "glm-5", "usage": usage}).encode())
    assert streaming.total() == whole.total() == ("glm-5", Usage(input=600, output=50, cache_read=400))
