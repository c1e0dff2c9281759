"""A real model server of llama.cpp on loopback, and our endpoint to it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tasks.clock import SystemClock
from tests.conftest import ROOT, STARTS_WITHIN_S, end, free_port
from tests.contract.chat_rig import AT_ONCE, chat_of
from tests.contract.tiny_model import CONTEXT, END
from worker.sidecars.openai_chat import OpenAIChat
from worker.sidecars.openai_chat_backend import ChatBackend, ChatEndpoint

PYTHON = ROOT / ".cache/model-server/bin/python"
WRITER = Path(__file__).with_name("tiny_model.py")
MODEL = "tiny"
WRITE_WITHIN_S = 60.0
LOAD_WITHIN_S = 4 * STARTS_WITHIN_S
ASK_EVERY_S = 0.1
ENDS: dict[str, Any] = {"seed": 1, "logit_bias": {str(END): 1.5}}
"""It says some twenty words: its end is a little likelier than any of them, and the seed makes the draw the same each
time. The server has `min_tokens` too, and forgets the bias where both are given.
"""
ENDLESS: dict[str, Any] = {"seed": 7, "logit_bias": {str(END): -100.0}}
"""It talks until its context is full: a minute or more."""


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A running one."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def written(folder: Path) -> Path:
    """A model."""
    model = folder / f"{MODEL}.gguf"
    subprocess.run([PYTHON, WRITER, model], check=True, timeout=WRITE_WITHIN_S)
    return model


@contextmanager
def model_server(folder: Path, model: Path) -> Iterator[ModelServer]:
    """One that finishes what it began before it answers the next."""
    port, log = free_port(), folder / "model-server.log"
    options = {"model": model, "model_alias": MODEL, "n_ctx": CONTEXT, "host": "127.0.0.1", "port": port}
    options |= {"n_threads": 1, "n_threads_batch": 1, "interrupt_requests": "false", "verbose": "false"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with log.open("wb") as out:
        process = subprocess.Popen([PYTHON, "-m", "llama_cpp.server", *words], stdout=out, stderr=out)
    server = ModelServer(f"http://127.0.0.1:{port}/v1", process, log)
    try:
        _answers(server)
        yield server
    finally:
        end(process)


def _answers(server: ModelServer) -> None:
    until_s = time.monotonic() + LOAD_WITHIN_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{server.url}/models").raise_for_status()
            return
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < until_s, server.log.read_text()
        time.sleep(ASK_EVERY_S)


@asynccontextmanager
async def endpoint(server: ModelServer, **more: Any) -> AsyncIterator[ChatEndpoint]:
    """As a node has it."""
    given = {"extra_body": ENDS, "retry": AT_ONCE} | more
    made = ChatEndpoint(ChatBackend(MODEL, server.url, MODEL, key=lambda: "", **given), SystemClock())
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def sidecar(server: ModelServer, **more: Any) -> AsyncIterator[OpenAIChat]:
    """Started."""
    async with contextlib.AsyncExitStack() as stack:
        kept = stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-chats-"))
        started = chat_of(await stack.enter_async_context(endpoint(server, **more)), Path(kept))
        assert (await started.start()).is_ready
        try:
            yield started
        finally:
            await started.close()
