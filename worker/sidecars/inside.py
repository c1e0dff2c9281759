"""Runs inside a sandbox: `python -I -S inside.py SOCKET VARIABLE[,VARIABLE…][:PORT] … -- PROGRAM WORD…`.

The sandbox has no network but its own loopback. For each pair this listens there, tells the program where by
the environment variables (a port is given where a file must name it before anything runs), and passes every
connection on to that unix socket, which leads to the node. It ends when the program does, with its status. The
standard library only, and nothing of ours: the sandbox has an interpreter and no packages.
"""

import asyncio
import functools
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


async def _passed_on(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        onward, outward = await asyncio.open_unix_connection(path)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, outward), _copy(onward, writer))
    outward.close()
    writer.close()


async def run(ways: list[str], command: list[str]) -> int:
    """Until the program has ended; its status, as a shell would say it."""
    told, servers = [], []
    for path, variables in zip(ways[::2], ways[1::2], strict=True):
        names, _, wanted = variables.partition(":")
        servers.append(await asyncio.start_server(functools.partial(_passed_on, path), "127.0.0.1", int(wanted or 0)))
        port = servers[-1].sockets[0].getsockname()[1]
        told += [f"{name}=http://127.0.0.1:{port}" for name in names.split(",")]
    program = await asyncio.create_subprocess_exec("/usr/bin/env", *told, *command)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.send_signal, number)
    status = await program.wait()
    for server in servers:
        server.close()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    divide = sys.argv.index("--")
    sys.exit(asyncio.run(run(sys.argv[1:divide], sys.argv[divide + 1 :])))
