"""`make agents-demo`: a coding agent mends a failing test of a sample project, through the fleet.

    python -m tests.agents_demo [--keep DIR]

Everything but the model is real: Claude Code in its sandbox, two nodes, queues, a Git remote. The model is a
double unless a key is set: see `model.py`. Exit status: 0 everything held, 1 something did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.testing.serving import serving
from tests.agents_demo.model import Model, double, real, scripted
from tests.agents_demo.sample import BRANCH, TESTS, git, make_remote, passes
from tests.contract.claude_binary import BINARY, VERSION, why_not

TOOL, PROJECT = "claude_code.run", "shop"
PROMPT = "The test of the cart fails. Find out why, mend the code, not the test, and run the tests again."
ALLOWED = '["Bash", "Read", "Edit"]'
UP_S, STOPS_S = 120.0, 60.0
LOG_CHARS = 3000


class NotHeld(Exception):
    """What the demo shows did not hold."""


async def _play(console: Console, folder: Path) -> None:
    remote = make_remote(folder)
    async with AsyncExitStack() as stack:
        model = real(os.environ) or scripted(await stack.enter_async_context(serving(double().app)))
        console.print(f"[bold]Model[/]    {model.told}")
        console.print(f"[bold]Agent[/]    Claude Code {VERSION}, in a sandbox without a network")
        console.print(f"[bold]Project[/]  {PROJECT}: {' '.join(TESTS)} fails\n")
        environ = await stack.enter_async_context(_fleet(folder, remote, model))
        words = ["call", TOOL, "--project", PROJECT, f"prompt={PROMPT}", f"allowed_tools:={ALLOWED}", "push=true"]
        words += ["max_cost_usd=0.5", "--idempotency-key", "agents-demo"]
        if model.key and "prices" not in model.entry:
            words.remove("max_cost_usd=0.5")  # money is limited where somebody gave a price
        console.print(f"[dim]$[/] [bold]mcpfleet {' '.join(words[:4])} prompt=… push=true[/]")
        if await _mcpfleet(environ, *words):
            raise NotHeld("the call failed; what it said is above")
        answer = await _answer(environ, words)
        await asyncio.to_thread(_check, console, folder, remote, answer)


@asynccontextmanager
async def _fleet(folder: Path, remote: Path, model: Model) -> AsyncIterator[Mapping[str, str]]:
    """The local fleet, as `mcpfleet up` starts it; the environment of commands that ask it."""
    key = folder / "model.key"
    key.touch(0o600)
    key.write_text(model.key)
    sidecar = {"kind": "claude_code", "binary": str(BINARY), "version": VERSION, "key_file": str(key), **model.entry}
    said = {"sidecars": {"claude_code": sidecar}, "projects": {PROJECT: {"git": str(remote)}}}
    servers = folder / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {}, "mcpfleet": said}))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MCPFLEET_")}
    environ = ours | {"MCPFLEET_STATE_DIR": str(folder / "state")}
    log = folder / "up.log"
    with log.open("wb") as out:
        words = ("up", "--ephemeral", "--no-flower", "--servers", str(servers))
        up = await asyncio.create_subprocess_exec(*_command(*words), env=environ, stdout=out, stderr=out)
    try:
        async with asyncio.timeout(UP_S):
            while await _mcpfleet(environ, "tools", TOOL, is_quiet=True):
                if up.returncode is not None:
                    raise NotHeld(f"mcpfleet up ended:\n{log.read_text()[-LOG_CHARS:]}")
        yield environ
    except TimeoutError:
        raise NotHeld(f"no node offers {TOOL}:\n{log.read_text()[-LOG_CHARS:]}") from None
    finally:
        if up.returncode is None:
            up.send_signal(signal.SIGINT)
            async with asyncio.timeout(STOPS_S):
                await up.wait()


async def _answer(environ: Mapping[str, str], words: Sequence[str]) -> dict[str, Any]:
    """The same call again, which by its key is the same invocation: nothing runs twice."""
    asked = await asyncio.create_subprocess_exec(
        *_command(*words, "--json"), env=environ, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asked.communicate()
    answer: dict[str, Any] = json.loads(out)["result"]["structuredContent"]
    return answer


async def _mcpfleet(environ: Mapping[str, str], *words: str, is_quiet: bool = False) -> int:
    out = asyncio.subprocess.DEVNULL if is_quiet else None
    return await (await asyncio.create_subprocess_exec(*_command(*words), env=environ, stdout=out, stderr=out)).wait()


def _command(*words: str) -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name("mcpfleet")), *words)


def _check(console: Console, folder: Path, remote: Path, answer: Mapping[str, Any]) -> None:
    """The patch mends the project where the agent never was."""
    console.print("\n[bold]Its patch, where the agent never was[/]")
    before, after = folder / "before", folder / "after"
    git(folder, "clone", "--quiet", "--branch", BRANCH, str(remote), str(before))
    shutil.copytree(before, after)
    git(after, "apply", given=answer["patch"])
    for holds, words in (
        (not passes(before), "without the patch the tests fail"),
        (passes(after), "with it they pass"),
        (answer["branch"] in git(remote, "branch", "--list", "agent/*"), f"{answer['branch']} is on the remote"),
    ):
        if not holds:
            raise NotHeld(f"it does not hold that {words}")
        console.print(f"[green]✓[/] {words}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="agents-demo", description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work there, and leave it")
    given = parser.parse_args()
    lack = why_not()
    if lack is not None:
        raise SystemExit(f"agents-demo: {lack}: make agents (Node.js, and root or bubblewrap, are needed)")
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="mcpfleet-agents-", ignore_cleanup_errors=True) as name:
        folder = given.keep.resolve() if given.keep is not None else Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SystemExit(f"agents-demo: --keep {folder} has something in it; name an empty folder")
        try:
            asyncio.run(_play(console, folder))
        except NotHeld as error:
            console.print(f"[red]✗[/] {error}")
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
