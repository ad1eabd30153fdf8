"""The pumps of the iroh binding keep the contract."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blobsync.address import SocketAddr
from blobsync.protocols.blobs.iroh_pumps import IrohPumps
from blobsync.protocols.blobs.testing import PumpsContract
from blobsync.transports.iroh import IrohEndpoint
from blobsync.transports.testing import ALPN, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobsync.transports import Connection

LOOPBACK = SocketAddr.from_text("127.0.0.1:0")


class TestIrohPumps(PumpsContract):
    def make_pumps(self) -> IrohPumps:
        return IrohPumps()

    @asynccontextmanager
    async def open_ends(self) -> AsyncIterator[tuple[Connection, Connection]]:
        async with (
            await IrohEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as one,
            await IrohEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as two,
        ):
            await two.wait_for_addr(10)
            async with connected((one, two)) as ends:
                yield ends
