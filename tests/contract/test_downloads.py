"""Fetches over many streams and connections, the same over every transport."""

from __future__ import annotations

import asyncio
import importlib
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from blobstore import BlobFormat, ChunkRanges, Hash, HashAndFormat, HashSeq, MemStore
from blobsync.address import EndpointId, SocketAddr
from blobsync.errors import NotFoundError, PeerDataError, UnreachableError
from blobsync.protocols.blobs import (
    ALPN,
    BlobSink,
    Element,
    GetProgress,
    Peer,
    Provider,
    SharedBlobs,
    get_elements,
)
from blobsync.protocols.blobs.parallelism import Parallelism
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.sharing import serve
from blobsync.transports.memory import MemoryNetwork
from blobsync.transports.quic.endpoint import AioquicEndpoint
from tests.needs import iroh_transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from blobstore import PartialBlob
    from blobsync.protocols.blobs import Pumps, WholeBlob
    from blobsync.transports import Connection, Endpoint

# Public keys of the secret keys [1; 32] and [2; 32].
IDS = (
    EndpointId.from_text("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
    EndpointId.from_text("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"),
)
LOOPBACK = SocketAddr.from_text("127.0.0.1:0")
TIMEOUT_S = 60
LARGE = 24 << 20  # several segments
ALL = ChunkRanges.all()


class StoreSink(BlobSink):
    """Puts what arrives into a store."""

    def __init__(self, store: MemStore) -> None:
        self._store = store
        self.opened: list[Hash] = []
        self.completed: list[Hash] = []

    async def add_whole(self, blobs: Sequence[WholeBlob]) -> None:
        hashes = await self._store.add_many([blob.data for blob in blobs])
        assert hashes == [blob.element.hash for blob in blobs]
        self.completed += hashes

    async def open_partial(self, element: Element, size: int) -> PartialBlob:
        self.opened.append(element.hash)
        return await self._store.open_partial(element.hash)

    async def complete(self, element: Element, partial: PartialBlob) -> None:
        await partial.complete()
        self.completed.append(element.hash)


@dataclass
class World:
    """A provider, and a getter that can dial it as often as it likes."""

    pumps: Pumps
    listener: Endpoint
    dialler: Endpoint
    served: MemStore
    provider: Provider
    shared: SharedBlobs
    store: MemStore
    root: Hash = field(default_factory=lambda: Hash(bytes(32)))
    contents: list[bytes] = field(default_factory=list[bytes])
    hashes: list[Hash] = field(default_factory=list[Hash])
    connections: list[Connection] = field(default_factory=list["Connection"])
    progress: GetProgress = field(default_factory=GetProgress)

    async def share(self, sizes: Sequence[int]) -> None:
        """Make the provider serve a hash seq of random blobs."""
        self.contents = [random.Random(i).randbytes(size) for i, size in enumerate(sizes)]
        self.hashes = await self.served.add_many(self.contents)
        self.root = await self.served.add_bytes(bytes(HashSeq(self.hashes)))
        self.shared.grant(HashAndFormat(self.root, BlobFormat.HASH_SEQ))

    async def dial(self) -> Connection:
        """A new connection to the provider."""
        connection = await self.dialler.connect(self.listener.addr(), ALPN)
        self.connections.append(connection)
        return connection

    async def missing(self) -> list[Element]:
        """What the getter lacks."""
        elements: list[Element] = []
        for i, hash in enumerate(self.hashes):
            known = await self.store.stat(hash)
            if known is None:
                elements.append(Element(i + 1, hash, ALL))
            elif not known.is_complete:
                have = known.bitfield
                if known.size_proven:
                    have = have.open_at_end(len(self.contents[i]))
                if ranges := ALL - have.full_groups():
                    elements.append(Element(i + 1, hash, ranges))
                    continue
                # It was ended between the last byte and the end.
                async with await self.store.open_partial(hash) as partial:
                    await partial.complete()
        return elements

    async def get(
        self, parallelism: Parallelism, *, sizes_known: bool = True, dials: bool = True
    ) -> StoreSink:
        """Fetch what is missing."""
        sizes = {hash: len(data) for hash, data in zip(self.hashes, self.contents, strict=True)}
        sink = StoreSink(self.store)
        dial = self.dial if dials else None
        await get_elements(
            Peer(await self.dial(), dial=dial, parallelism=parallelism),
            self.pumps,
            self.root,
            await self.missing(),
            sink,
            self.progress,
            sizes=sizes if sizes_known else None,
        )
        return sink

    async def check(self) -> None:
        """All is there, and came once."""
        for hash, data in zip(self.hashes, self.contents, strict=True):
            assert await self.store.read(hash) == data
        assert self.progress.bytes_fetched == sum(map(len, self.contents))


class Fixed(Parallelism):
    """As many streams and connections as the test says, of a far peer."""

    def __init__(self, streams: int, connections: int = 1) -> None:
        super().__init__(0.05)
        self.streams = streams
        self.connections = connections

    def look(self, measured: object) -> None:
        """Nothing is measured."""


@asynccontextmanager
async def endpoints(transport: str) -> AsyncGenerator[tuple[Endpoint, Endpoint, Pumps]]:
    if transport == "memory":
        network = MemoryNetwork()
        one, two = (network.endpoint(id, [ALPN]) for id in IDS)
        async with one, two:
            yield one, two, PythonPumps()
        return
    if transport == "aioquic":
        bind, pumps = AioquicEndpoint.bind, PythonPumps()
    else:
        bind = iroh_transport().IrohEndpoint.bind
        pumps = importlib.import_module("blobsync.protocols.blobs.iroh_pumps").IrohPumps()
    async with (
        await bind(alpns=[ALPN], bind=[LOOPBACK]) as one,
        await bind(bind=[LOOPBACK]) as two,
    ):
        await one.wait_for_addr(10)
        yield one, two, pumps


@pytest.fixture(params=["memory", "iroh", "aioquic"])
async def world(request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    async with (
        asyncio.timeout(TIMEOUT_S),
        MemStore() as served,
        MemStore() as store,
        endpoints(request.param) as (listener, dialler, pumps),
    ):
        shared = SharedBlobs()
        provider = Provider(served, shared, pumps)
        serving = asyncio.ensure_future(serve(listener, provider))
        try:
            yield World(pumps, listener, dialler, served, provider, shared, store)
        finally:
            serving.cancel()
            await asyncio.wait({serving})


@pytest.mark.parametrize(("streams", "connections"), [(1, 1), (2, 1), (7, 1), (4, 2)])
async def test_a_large_blob_comes_in_segments(world: World, streams: int, connections: int):
    await world.share([LARGE + 12_345])
    sink = await world.get(Fixed(streams, connections))
    await world.check()
    assert sink.opened == sink.completed == world.hashes, "all lanes fill one partial blob"
    assert world.provider.counters.requests >= LARGE // (4 << 20)


async def test_a_blob_whose_size_comes_with_the_answer_is_cut_then(world: World):
    await world.share([10, LARGE, 20, 3_000_000, 30])
    await world.get(Fixed(3), sizes_known=False)
    await world.check()
    assert world.provider.counters.requests > LARGE // (4 << 20)


async def test_many_small_blobs_come_over_many_streams(world: World):
    await world.share([i * 7 % 5000 for i in range(3000)])
    await world.get(Fixed(8), sizes_known=False)
    await world.check()
    assert world.provider.counters.requests >= 10


async def test_a_near_peer_is_asked_once_for_small_blobs(world: World):
    await world.share([i * 7 % 5000 for i in range(3000)])
    await world.get(Parallelism(0.0001), sizes_known=False)
    await world.check()
    assert world.provider.counters.requests == 1


async def test_a_resumed_blob_with_holes(world: World):
    await world.share([LARGE])
    (hash,) = world.hashes
    held = ChunkRanges((0, 160, 5000, 5008, 9008, 16_000))
    await get_elements(
        Peer(await world.dial()),
        world.pumps,
        world.root,
        [Element(1, hash, held)],
        StoreSink(world.store),
        world.progress,
    )
    await world.get(Fixed(4))
    # Chunks are kept in whole groups only: the ends of the holes come again.
    for content, known in zip(world.contents, world.hashes, strict=True):
        assert await world.store.read(known) == content
    assert world.progress.bytes_fetched <= LARGE + 4 * 16 * 1024


async def test_whatever_ends_it_what_is_proven_is_recorded_and_nothing_runs(world: World):
    await world.share([LARGE, LARGE // 2, 10])
    tasks = asyncio.all_tasks()
    fetching = asyncio.ensure_future(world.get(Fixed(5)))
    while world.progress.bytes_fetched < LARGE // 4:
        await asyncio.wait({fetching}, timeout=0.001)
    fetching.cancel()
    await asyncio.wait({fetching})
    assert fetching.cancelled()
    left = {task for task in asyncio.all_tasks() - tasks if "get_elements" in repr(task)}
    assert not left
    before = world.progress.bytes_fetched
    for connection in world.connections:
        await connection.close()
    await world.get(Fixed(5))
    for hash, data in zip(world.hashes, world.contents, strict=True):
        assert await world.store.read(hash) == data
    assert before > 0
    assert world.progress.bytes_fetched == sum(map(len, world.contents)), "nothing came twice"


async def test_a_lost_connection_keeps_what_was_proven(world: World):
    await world.share([LARGE, LARGE // 2])
    fetching = asyncio.ensure_future(world.get(Fixed(5), dials=False))
    while world.progress.bytes_fetched < LARGE // 4:
        await asyncio.wait({fetching}, timeout=0.001)
    await world.connections[0].close()
    with pytest.raises(UnreachableError):
        await fetching
    await world.get(Fixed(3))
    await world.check()


async def test_a_further_connection_that_is_lost_is_done_without(world: World):
    await world.share([LARGE, LARGE // 2])
    fetching = asyncio.ensure_future(world.get(Fixed(4, 2)))
    while len(world.connections) < 2 and not fetching.done():
        await asyncio.wait({fetching}, timeout=0.001)
    await world.connections[-1].close()
    await fetching
    await world.check()


async def test_a_further_connection_that_is_refused_is_done_without(world: World):
    await world.share([LARGE])
    dial = world.dial

    async def dial_once() -> Connection:
        if world.connections:
            raise UnreachableError("one is enough")
        return await dial()

    world.dial = dial_once  # type: ignore[method-assign]
    await world.get(Fixed(4, 4))
    await world.check()
    assert len(world.connections) == 1


async def test_a_missing_piece_ends_it_and_keeps_the_rest(world: World):
    await world.share([LARGE, 10])
    absent = Hash(b"\1" * 32)
    hashes = [*world.hashes, absent]
    world.root = await world.served.add_bytes(bytes(HashSeq(hashes)))
    world.shared.grant(HashAndFormat(world.root, BlobFormat.HASH_SEQ))
    elements = [*await world.missing(), Element(3, absent, ALL)]
    with pytest.raises(NotFoundError):
        await get_elements(
            Peer(await world.dial(), parallelism=Fixed(4)),
            world.pumps,
            world.root,
            elements,
            StoreSink(world.store),
            world.progress,
            sizes={world.hashes[0]: LARGE},
        )
    await world.get(Fixed(4))
    await world.check()


async def test_bad_data_names_the_peer(world: World):
    await world.share([LARGE])
    # The provider checks what leaves; so it is the getter who expects another blob.
    wrong = Hash(b"\2" * 32)
    with pytest.raises(PeerDataError, match=world.listener.id.short()):
        await get_elements(
            Peer(await world.dial(), parallelism=Fixed(4)),
            world.pumps,
            world.root,
            [Element(1, wrong, ALL)],
            StoreSink(world.store),
            world.progress,
            sizes={wrong: LARGE},
        )
    assert world.progress.bytes_fetched == 0
    known = await world.store.stat(wrong)
    assert known is None or not known.bitfield
