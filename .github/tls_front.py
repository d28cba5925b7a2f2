# noqa: INP001 - a script of the self-test, no package
"""TLS in front of servers on 127.0.0.1: `tls_front.py ADDRESS CERTIFICATE KEY PORT=PORT_BEHIND …`.

On GitHub's runner a Docker action has a network of its own, so that it cannot reach 127.0.0.1 of the machine, and our
actions speak plain http to loopback only.
"""

import asyncio
import contextlib
import ssl
import sys
from functools import partial


async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side ends."""
    # A side that breaks off ends the connection, which is all that can be done about it.
    with contextlib.suppress(OSError), contextlib.closing(sink):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()


async def connect(behind: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection with one to the server behind."""
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", behind)
    await asyncio.gather(relay(reader, inner_writer), relay(inner_reader, writer))


async def main(address: str, certificate: str, key: str, *ports: str) -> None:
    """Listen on every port until the process is ended."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with contextlib.AsyncExitStack() as running:
        for pair in ports:
            port, behind = map(int, pair.split("="))
            server = await asyncio.start_server(partial(connect, behind), address, port, ssl=tls)
            await running.enter_async_context(server)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
