"""The pumps in Python keep the contract, over the memory transport."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from blobsync.address import EndpointId
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.protocols.blobs.testing import PumpsContract
from blobsync.transports.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobsync.transports import Connection

# Public keys of the secret keys [1; 32] and [2; 32].
IDS = (
    EndpointId.from_text("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
    EndpointId.from_text("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"),
)


class TestPythonPumps(PumpsContract):
    def make_pumps(self) -> PythonPumps:
        return PythonPumps()

    @asynccontextmanager
    async def open_ends(self) -> AsyncIterator[tuple[Connection, Connection]]:
        ours, theirs = MemoryConnection.pair(*IDS, b"test")
        async with ours, theirs:
            yield ours, theirs
