"""The accepting side of iroh's echo example: sends back what comes.

    python listen.py [--any]

Prints a ticket for `connect.py`. It can be reached from this machine only, or with `--any` at all
addresses of this machine.
"""

import asyncio
import sys

from pyiroh import Endpoint, EndpointTicket, Incoming, IrohError, RecvStream, SendStream

ALPN = b"iroh-example/echo/0"


async def echo(send: SendStream, recv: RecvStream) -> None:
    """Copy until the peer has sent everything; then say that we have, too."""
    while data := await recv.read(1 << 16):
        await send.write_all(data)
    send.finish()


async def serve(incoming: Incoming) -> None:
    """Answer on the one stream that the protocol has, and stay until the peer leaves."""
    try:
        connection = await incoming.accept()
        print(f"accepted connection from {connection.remote_id}", flush=True)
        send, recv = await connection.accept_bi()
        await echo(send, recv)
        await connection.closed()
    except IrohError as error:
        print(f"peer gone: {error}", file=sys.stderr)


async def main(bind_ipv4: str, bind_ipv6: str | None) -> None:
    async with await Endpoint.bind(
        alpns=[ALPN], bind_ipv4=bind_ipv4, bind_ipv6=bind_ipv6
    ) as endpoint:
        print(EndpointTicket(endpoint.addr()), flush=True)
        # A task for each peer, so that a slow one keeps nobody waiting.
        async with asyncio.TaskGroup() as peers:
            while (incoming := await endpoint.accept()) is not None:
                peers.create_task(serve(incoming))


if __name__ == "__main__":
    if "--any" in sys.argv[1:]:
        asyncio.run(main("0.0.0.0:0", "[::]:0"))
    else:
        asyncio.run(main("127.0.0.1:0", None))
