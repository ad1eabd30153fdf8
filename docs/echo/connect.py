"""The dialling side of iroh's echo example: sends words and prints what comes back.

python connect.py TICKET [WORDS]
"""

import asyncio
import sys

from pyiroh import Endpoint, EndpointTicket

ALPN = b"iroh-example/echo/0"
ANSWER_MAX = 1000
TIMEOUT_S = 10


async def main(ticket: str, words: str) -> None:
    addr = EndpointTicket.from_text(ticket).addr
    async with await Endpoint.bind() as endpoint:
        connection = await endpoint.connect(addr, ALPN, timeout_s=TIMEOUT_S)
        send, recv = await connection.open_bi()
        await send.write_all(words.encode())
        send.finish()
        print((await recv.read_to_end(ANSWER_MAX)).decode())
        connection.close(0, b"bye!")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:]) or "Hello, world!"))
