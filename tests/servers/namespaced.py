"""Runs a server in a network namespace of its own, where nobody else can reach it, and leads to it by a Unix socket.

    unshare --net python namespaced.py SOCKET PORT COMMAND...

The command sees a loopback interface and no other network. What connects to SOCKET is connected to its 127.0.0.1:PORT.
Ends with the command, and takes it along when it is terminated.
"""

from __future__ import annotations

import asyncio
import fcntl
import signal
import socket
import struct
import sys
from contextlib import suppress

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
LOOPBACK = b"lo"


def bring_up() -> None:
    """Of a new namespace even the loopback interface is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", LOOPBACK, 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, asked), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", LOOPBACK, flags | IFF_UP))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(ConnectionError, RuntimeError):
        writer.close()


async def main(path: str, port: str, *command: str) -> int:
    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))

    bring_up()
    running = await asyncio.create_subprocess_exec(*command)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.terminate)
    async with await asyncio.start_unix_server(lead, path):
        return await running.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
