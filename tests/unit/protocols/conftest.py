"""A provider and a getter joined by the memory transport."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from blobstore import LmdbStore, MemStore, Store
from blobsync.address import EndpointId
from blobsync.protocols.blobs import ALPN, Provider, SharedBlobs
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.transports.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blobsync.transports import Connection

# Public keys of the secret keys [1; 32] and [2; 32].
IDS = (
    EndpointId.from_text("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
    EndpointId.from_text("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"),
)


@dataclass
class World:
    """A provider with its store, and a connection to it."""

    store: Store
    shared: SharedBlobs
    provider: Provider
    connection: Connection
    pumps: PythonPumps


@asynccontextmanager
async def serving(store: Store) -> AsyncIterator[World]:
    """Serve `store` on a new connection."""
    shared = SharedBlobs()
    pumps = PythonPumps()
    provider = Provider(store, shared, pumps)
    ours, theirs = MemoryConnection.pair(*IDS, ALPN)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(provider.serve(theirs))
        async with ours:
            yield World(store, shared, provider, ours, pumps)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with asyncio.timeout(60), MemStore() as store, serving(store) as world:
        yield world


@pytest.fixture
async def lmdb_world(tmp_path: Path) -> AsyncIterator[World]:
    """The same over a store that refers to files of the user."""
    async with (
        asyncio.timeout(60),
        LmdbStore.open(tmp_path / "store") as store,
        serving(store) as world,
    ):
        yield world
