"""The memory transport keeps the contract of transports."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blobsync.address import EndpointId
from blobsync.transports.memory import MemoryNetwork
from blobsync.transports.testing import ALPN, TransportContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobsync.transports import Endpoint

# Public keys of the secret keys [1; 32] and [2; 32].
IDS = (
    EndpointId.from_text("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
    EndpointId.from_text("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"),
)


class TestMemoryTransport(TransportContract):
    @asynccontextmanager
    async def open_endpoints(self) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
        network = MemoryNetwork()
        async with network.endpoint(IDS[0], [ALPN]) as one, network.endpoint(IDS[1], [ALPN]) as two:
            yield one, two
