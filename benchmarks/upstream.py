"""A service that costs next to nothing: the same small answer to every request that has no body.

python -m benchmarks.upstream PORT
"""

import asyncio
import sys

BODY = b'{"id":1,"email":"a@hg.io","role":"user","org_id":1,"created_at":"2024-06-01T10:00:00Z"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nVary: Accept\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY
END = b"\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection, kept alive."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(END)
        self._transport.write(ANSWER * len(requests))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
