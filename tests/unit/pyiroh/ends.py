"""Two endpoints on loopback and what connects them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from pyiroh import Endpoint, TransportConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pyiroh import Connection, RecvStream, SendStream

ALPN = b"pyiroh-test/0"


async def bind(
    *, alpns: Sequence[bytes] = (ALPN,), transport: TransportConfig | None = None
) -> Endpoint:
    """An endpoint with one IPv4 socket on loopback."""
    return await Endpoint.bind(
        alpns=alpns, bind_ipv4="127.0.0.1:0", bind_ipv6=None, transport=transport
    )


async def connect(dialling: Endpoint, accepting: Endpoint) -> tuple[Connection, Connection]:
    """A connection between two endpoints, seen from each."""

    async def accept() -> Connection:
        incoming = await accepting.accept()
        assert incoming is not None
        return await incoming.accept()

    ours, theirs = await asyncio.gather(dialling.connect(accepting.addr(), ALPN), accept())
    return ours, theirs


class Ends(NamedTuple):
    """A connection seen from both ends, and the endpoints."""

    dialled: Connection
    accepted: Connection
    dialling: Endpoint
    accepting: Endpoint


@asynccontextmanager
async def connected(transport: TransportConfig | None = None) -> AsyncIterator[Ends]:
    async with (
        await bind(transport=transport) as dialling,
        await bind(transport=transport) as accepting,
    ):
        dialled, accepted = await connect(dialling, accepting)
        yield Ends(dialled, accepted, dialling, accepting)


async def open_uni(ends: Ends, first: bytes = b"") -> tuple[SendStream, RecvStream]:
    """A stream from the dialling to the accepting end, with its first bytes written.

    Without any, one byte is written and read to make the stream known.
    """
    send = await ends.dialled.open_uni()
    await send.write_all(first or b"!")
    recv = await ends.accepted.accept_uni()
    if not first:
        assert await recv.read_exact(1) == b"!"
    return send, recv


async def open_bi(
    ends: Ends,
) -> tuple[tuple[SendStream, RecvStream], tuple[SendStream, RecvStream]]:
    """A stream in both directions: the dialling end's halves, then the accepting end's."""
    ours = await ends.dialled.open_bi()
    await ours[0].write_all(b"!")
    theirs = await ends.accepted.accept_bi()
    assert await theirs[1].read_exact(1) == b"!"
    return ours, theirs
