"""The iroh transport keeps the contract of transports."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blobsync.address import SocketAddr
from blobsync.transports.iroh import IrohEndpoint
from blobsync.transports.testing import ALPN, TransportContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobsync.transports import Endpoint

LOOPBACK = SocketAddr.from_text("127.0.0.1:0")


class TestIrohTransport(TransportContract):
    @asynccontextmanager
    async def open_endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        async with (
            await IrohEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as one,
            await IrohEndpoint.bind(alpns=[ALPN], bind=[LOOPBACK]) as two,
        ):
            await one.wait_for_addr(10)
            await two.wait_for_addr(10)
            yield one, two
