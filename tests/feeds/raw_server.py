"""A server that is none: it answers whatever it is asked with the same bytes."""

import asyncio
import contextlib
from collections.abc import Iterator

from servers import HOST, LoopThread


@contextlib.contextmanager
def raw_server(answer: bytes) -> Iterator[int]:
    """Yield the port of a server that answers anything with the same bytes, over and over."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while await reader.read(65_536):
                    writer.write(answer)
                    await writer.drain()
        finally:
            writer.transport.abort()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(handle, HOST, 0)

    with LoopThread() as loop:
        server = loop.run(listen())
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            loop.loop.call_soon_threadsafe(server.close)
