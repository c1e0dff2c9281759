"""The tools that a chat model gets in a workspace: its files, and commands in a sandbox without a network.

What goes wrong in one is told to the model as its answer; nothing here ends a run. Files are reached by the node
itself, so only through `Tree`; commands only through `sandbox`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import SettingsError
from worker.sidecars import way_out
from worker.sidecars.openai_chat_stream import ToolCall
from worker.workspaces import sandbox
from worker.workspaces.tree import NotThere, Tree

ENTRIES_MAX = 500
OUTPUT_MAX_BYTES = 60_000
"""Of a command, or of a file that is read, what the model is told: half from each end."""
READ_BYTES = 65_536
COMMAND_S = 120.0
ABOUT_CHARS = 200
READING = frozenset({"read_file", "list_files"})


@dataclass(frozen=True, slots=True)
class Told:
    """What a tool answers."""

    text: str
    is_error: bool = False


def _tool(name: str, about: str, **given: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {key: {"type": "string", "description": said} for key, said in given.items()},
        "required": list(given),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


_PATH = "Relative to the workspace."
_ALL = (
    _tool("read_file", "Read a text file of the workspace.", path=_PATH),
    _tool("list_files", "List a folder of the workspace and all below it.", path=f"{_PATH} '.' is the workspace."),
    _tool("write_file", "Write a whole file of the workspace; folders are made.", path=_PATH, content="All of it."),
    _tool(
        "edit_file",
        "Replace a piece of text in a file; it must be in the file exactly once.",
        path=_PATH,
        old="The text as it is, with enough around it to be found once.",
        new="The text as it is to be.",
    ),
    _tool(
        "run_command",
        "Run a shell command in the workspace. It has no network but what HTTPS_PROXY leads to, where that is set.",
        command="For /bin/sh.",
    ),
)


class WorkspaceTools:
    """Of one run. `bwrap` None: commands are not offered."""

    def __init__(
        self,
        workspace: Path,
        home: Path,
        bwrap: str | None,
        *,
        only: Collection[str] | None = None,
        read_only: Mapping[Path, str] | None = None,
        entering: tuple[str, ...] = (),
        reach: Path | None = None,
    ) -> None:
        self._tree = Tree(workspace, inside=sandbox.WORKSPACE)
        shown = {**(read_only or {}), **({} if reach is None else way_out.SCRIPT)}
        environ = way_out.environ(reach)
        self._world = sandbox.Sandbox(workspace, home, None, shown, environ, entering, reach)
        self._bwrap = bwrap
        names = {_name(tool) for tool in _ALL if bwrap is not None or _name(tool) != "run_command"}
        self._given = names if only is None else names & set(only)

    def offered(self) -> tuple[dict[str, Any], ...]:
        """As the chat API wants them."""
        return tuple(tool for tool in _ALL if _name(tool) in self._given)

    def has(self, name: str) -> bool:
        """Whether the model was given it."""
        return name in self._given

    async def use(self, call: ToolCall) -> Told:
        """Do it. What the model got wrong is its answer."""
        if call.name not in self._given:
            return Told(
                f"there is no tool {call.name!r} here; there are: {', '.join(sorted(self._given))}", is_error=True
            )
        given = arguments(call)
        wanted = next(tool for tool in _ALL if _name(tool) == call.name)["function"]["parameters"]["required"]
        if given is None or any(not isinstance(given.get(name), str) for name in wanted):
            said = f"the arguments of {call.name} are a JSON object with the texts {', '.join(wanted)}"
            return Told(f"{said}; this was {call.arguments[:ABOUT_CHARS]!r}", is_error=True)
        if call.name == "run_command":
            return await self._run(given["command"])
        return await asyncio.to_thread(self._files, call.name, given)

    def _files(self, name: str, given: dict[str, str]) -> Told:
        path = given["path"]
        if name == "read_file":
            return _told(self._tree.read(path))
        if name == "list_files":
            entries = self._tree.entries(path, ENTRIES_MAX)
            return _told(entries if isinstance(entries, NotThere) else "\n".join(entries) or "the folder is empty")
        if name == "write_file":
            return _told(self._tree.write(path, given["content"]) or f"{path} is written")
        return self._edit(path, given["old"], given["new"])

    def _edit(self, path: str, old: str, new: str) -> Told:
        text = self._tree.read(path)
        if isinstance(text, NotThere):
            return _told(text)
        found = text.count(old) if old else 0
        if found != 1:
            said = (
                f"the old text is {found} times in {path}, and must be there once; read the file, and give more of it"
            )
            return Told(said, is_error=True)
        if "\ufffd" in text:
            return Told(f"{path} is not UTF-8, so an edit would change other bytes; use a command", is_error=True)
        return _told(self._tree.write(path, text.replace(old, new)) or f"{path} is changed")

    async def _run(self, shell: str) -> Told:
        if "\0" in shell:
            return Told("a command has no NUL", is_error=True)
        program: tuple[str, ...] = ("/bin/sh", "-c", shell)
        try:
            if self._world.reach is not None:
                program = way_out.led(sandbox.find_python(), program, model=None, reach=self._world.reach)
            words = sandbox.command(str(self._bwrap), self._world, program)
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=sandbox.environ(self._world),
            )
        except SettingsError as error:
            return Told(f"the command could not be started: {error}", is_error=True)
        except OSError as error:  # a command longer than the kernel takes, no process left
            return Told(f"the command could not be started: {error.strerror or error}", is_error=True)
        output = _Output()
        try:
            async with asyncio.timeout(COMMAND_S):
                await output.read(process.stdout)
                status = await process.wait()
        except TimeoutError:
            return Told(f"{output.text()}\nit was ended after {COMMAND_S:g} s", is_error=True)
        finally:
            await _ended(process)  # its process namespace goes with it, and all that was started there
        return Told(f"{output.text()}\nexit status {status}", is_error=status != 0)


class _Output:
    """Both ends of what a command says: however much it is, no more is kept."""

    def __init__(self) -> None:
        self._head, self._tail, self._size = bytearray(), bytearray(), 0

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        """To its end."""
        while stream is not None and (part := await stream.read(READ_BYTES)):
            self._size += len(part)
            room = OUTPUT_MAX_BYTES // 2 - len(self._head)
            self._head += part[:room]
            self._tail += part[room:]
            del self._tail[: -OUTPUT_MAX_BYTES // 2]

    def text(self) -> str:
        """What is kept, with a line for what is not."""
        left_out = self._size - len(self._head) - len(self._tail)
        between = f"\n… {left_out} bytes are left out …\n".encode() if left_out else b""
        return bytes(self._head + between + self._tail).decode("utf-8", "replace")


async def _ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def about(call: ToolCall) -> str:
    """For a line on a screen."""
    given = arguments(call) or {}
    return str(given.get("command") or given.get("path") or call.arguments)[:ABOUT_CHARS]


def arguments(call: ToolCall) -> dict[str, Any] | None:
    """None where they are no JSON object."""
    try:
        given = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _name(tool: dict[str, Any]) -> str:
    return str(tool["function"]["name"])


def _told(said: str | NotThere) -> Told:
    if isinstance(said, NotThere):
        return Told(said.why, is_error=True)
    if len(said) <= OUTPUT_MAX_BYTES:
        return Told(said)
    half = OUTPUT_MAX_BYTES // 2
    return Told(f"{said[:half]}\n… {len(said) - 2 * half} characters are left out …\n{said[-half:]}")
