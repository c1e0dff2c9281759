"""Runs inside a sandbox: `python -I -S inside.py SOCKET VARIABLE[:PORT] PROGRAM WORD…`.

The sandbox has no network but its own loopback. This listens there, tells the program where by the
environment variable (a port is given where a file must name it before anything runs), and passes every
connection on to the unix socket that leads to the node's egress. It ends when the program does, with its
status. The standard library only, and nothing of ours: the sandbox has an interpreter and no packages.
"""

import asyncio
import signal
import sys

CHUNK_BYTES = 65_536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def run(path: str, variable: str, command: list[str]) -> int:
    """Until the program has ended; its status, as a shell would say it."""

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward, outward = await asyncio.open_unix_connection(path)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, outward), _copy(onward, writer))
        outward.close()
        writer.close()

    variable, _, wanted = variable.partition(":")
    server = await asyncio.start_server(passed_on, "127.0.0.1", int(wanted or 0))
    port = server.sockets[0].getsockname()[1]
    program = await asyncio.create_subprocess_exec("/usr/bin/env", f"{variable}=http://127.0.0.1:{port}", *command)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.send_signal, number)
    status = await program.wait()
    server.close()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3:])))
