"""Programs of this machine, run to their end: `ip`, `mount` and their like. Owns how their failure is told."""

from __future__ import annotations

import asyncio

ANSWER_S = 20.0


class CommandFailed(Exception):
    """It ended badly, or not at all in time."""

    def __init__(self, words: tuple[str, ...], said: str) -> None:
        super().__init__(f"`{' '.join(words)}`: {said.strip() or 'no word why'}")


async def run(*words: str) -> str:
    """What it printed.

    Raises:
        CommandFailed: it is not there, ended badly, or took longer than `ANSWER_S`.
    """
    pipe = asyncio.subprocess.PIPE
    nothing = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*words, stdin=nothing, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise CommandFailed(words, str(error)) from error
    try:
        async with asyncio.timeout(ANSWER_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CommandFailed(words, f"no end after {ANSWER_S:g} s") from None
    if process.returncode:
        raise CommandFailed(words, err.decode(errors="replace"))
    return out.decode(errors="replace")
