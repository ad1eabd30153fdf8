"""A getter against a provider: any blobs, any local state, any request, and any broken stream.

Over the memory transport, so that each byte of an answer can be flipped and each cut tried.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from blobstore import (
    INLINE_SIZE_MAX,
    BlobFormat,
    BlobNotFoundError,
    ChunkRanges,
    Hash,
    HashAndFormat,
    HashSeq,
    MemStore,
)
from blobsync.address import EndpointId
from blobsync.errors import BlobsyncError, PeerDataError
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
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.transports import ConnectionClosedError, StreamResetError
from blobsync.transports.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence

    from blobstore import BlobStat, PartialBlob
    from blobsync.protocols.blobs import WholeBlob
    from blobsync.transports import BiStream, RecvStream

T = TypeVar("T")

# Public keys of the secret keys [1; 32] and [2; 32].
IDS = (
    EndpointId.from_text("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
    EndpointId.from_text("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"),
)

# Around a chunk, a group, two groups; some groups; over what travels whole.
SIZES = [0, 1, 1024, 1025, 16_384, 16_385, 32_768, 40_000, 65_537, 200_000, 1_100_000]

ranges = st.one_of(
    st.just(ChunkRanges.all()),
    st.just(ChunkRanges.last()),
    st.lists(st.integers(0, 220), unique=True, min_size=1, max_size=6).map(
        lambda boundaries: ChunkRanges(sorted(boundaries))
    ),
)


@dataclass(frozen=True)
class Child:
    """One child of the hash seq that is asked for."""

    size: int
    held: ChunkRanges
    """What an earlier fetch has brought; all of it: the blob is complete."""
    wanted: ChunkRanges


children = st.lists(
    st.builds(
        Child,
        st.sampled_from(SIZES),
        st.one_of(st.just(ChunkRanges.empty()), ranges),
        ranges,
    ),
    min_size=1,
    max_size=4,
)


def content(index: int, size: int) -> bytes:
    """No two chunks, and no two children, are equal."""
    pieces = (
        (index << 32 | chunk).to_bytes(8, "little") * 128 for chunk in range(-(-size // 1024))
    )
    return b"".join(pieces)[:size]


@dataclass
class Fault:
    """What happens to the bytes of one answer on their way."""

    flip: int | None = None
    """Bit to flip, counted from the first of the answer."""
    cut: int | None = None
    """Bytes that arrive."""
    end: str = "finish"
    """How the stream ends there: `finish`, `reset` or `close`."""
    passed: int = 0
    """Bytes that arrived."""

    def wrap(self, recv: RecvStream) -> None:
        read = recv.read

        async def faulty_read(max_bytes: int) -> bytes:
            if self.cut is not None:
                max_bytes = min(max_bytes, self.cut - self.passed)
                if max_bytes == 0:
                    return self._end()
            piece = bytearray(await read(max_bytes))
            if self.flip is not None:
                at, bit = divmod(self.flip, 8)
                if self.passed <= at < self.passed + len(piece):
                    piece[at - self.passed] ^= 1 << bit
            self.passed += len(piece)
            return bytes(piece)

        recv.read = faulty_read  # type: ignore[method-assign]

    def _end(self) -> bytes:
        match self.end:
            case "reset":
                raise StreamResetError(3)
            case "close":
                raise ConnectionClosedError("the peer closed the connection")
            case _:
                return b""


class FaultyConnection(MemoryConnection):
    """One whose streams have a fault."""

    fault: Fault | None = None

    async def open_bi(self) -> BiStream:
        stream = await super().open_bi()
        if self.fault is not None:
            self.fault.wrap(stream.recv)
        return stream


class StoreSink(BlobSink):
    """Puts what arrives into a store; notes what came."""

    def __init__(self, store: MemStore) -> None:
        self._store = store
        self.wholes: list[Hash] = []

    async def add_whole(self, blobs: Sequence[WholeBlob]) -> None:
        assert await self._store.add_many([blob.data for blob in blobs]) == [
            blob.element.hash for blob in blobs
        ]
        self.wholes += [blob.element.hash for blob in blobs]

    async def open_partial(self, element: Element, size: int) -> PartialBlob:
        return await self._store.open_partial(element.hash)

    async def complete(self, element: Element, partial: PartialBlob) -> None:
        await partial.complete()


@dataclass
class World:
    """The provider, who holds everything, and the getter's store."""

    children: list[Child]
    served: MemStore
    store: MemStore
    root: Hash = field(default_factory=lambda: Hash(bytes(32)))
    hashes: list[Hash] = field(default_factory=list[Hash])

    @classmethod
    @asynccontextmanager
    async def of(cls, children: list[Child]) -> AsyncGenerator[World]:
        async with MemStore() as served, MemStore() as store:
            world = cls(children, served, store)
            contents = [content(i, child.size) for i, child in enumerate(children)]
            world.hashes = await served.add_many(contents)
            world.root = await served.add_bytes(bytes(HashSeq(world.hashes)))
            for i, child in enumerate(children):
                if child.held:
                    await world.get([Element(i + 1, world.hashes[i], child.held)])
            yield world

    async def get(self, elements: list[Element], fault: Fault | None = None) -> int:
        """Fetch; returns the bytes of content that came."""
        shared = SharedBlobs()
        shared.grant(HashAndFormat(self.root, BlobFormat.HASH_SEQ))
        provider = Provider(self.served, shared, PythonPumps())
        ours, theirs = FaultyConnection.pair(*IDS, ALPN)
        assert isinstance(ours, FaultyConnection)
        ours.fault = fault
        progress = GetProgress()
        serving = asyncio.ensure_future(provider.serve(theirs))
        try:
            sink = StoreSink(self.store)
            await get_elements(Peer(ours), PythonPumps(), self.root, elements, sink, progress)
        finally:
            await ours.close()
            await serving
        return progress.bytes_fetched

    async def held(self, index: int) -> ChunkRanges:
        known = await self.store.stat(self.hashes[index])
        if known is None:
            return ChunkRanges.empty()
        return ChunkRanges.all() if known.is_complete else known.bitfield

    async def missing(self) -> list[Element]:
        """What is wanted and not here, as a fetch would ask for it."""
        elements: list[Element] = []
        for i, child in enumerate(self.children):
            held = await self.held(i)
            known = await self.store.stat(self.hashes[i])
            wanted = child.wanted
            if known is not None and known.size_proven:
                wanted = wanted.truncate(known.size)
            missing = wanted - held
            if missing:
                elements.append(Element(i + 1, self.hashes[i], missing))
        return elements

    def payload(self, elements: list[Element]) -> int:
        """Bytes of content that an honest answer holds."""
        sizes = [self.children[element.index - 1].size for element in elements]
        return sum(
            element.ranges.truncate(size).bytes_within(size)
            for element, size in zip(elements, sizes, strict=True)
        )

    async def check(self, *, has_all: bool) -> None:
        """What the store claims is right and, with `has_all`, what is wanted is there."""
        for i, child in enumerate(self.children):
            data = content(i, child.size)
            held = await self.held(i)
            if has_all:
                assert child.wanted.truncate(child.size).issubset(held)
            if (await self._complete(i)) is not None:
                assert await self.store.read(self.hashes[i]) == data
                continue
            async with await self.store.open_partial(self.hashes[i]) as partial:
                for start, end in held.intervals():
                    stop = child.size if end is None else min(end * 1024, child.size)
                    written = os.pread(partial.data_fd, stop - start * 1024, start * 1024)
                    assert written == data[start * 1024 : stop]

    async def _complete(self, index: int) -> BlobStat | None:
        known = await self.store.stat(self.hashes[index])
        return known if known is not None and known.is_complete else None


def run(main: Coroutine[None, None, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(limited())


async def fails(world: World, elements: list[Element], fault: Fault) -> BlobsyncError | None:
    """How a fetch over a broken stream fails, if it does; it may fail in our words only."""
    try:
        await world.get(elements, fault)
    except BlobsyncError as error:
        return error
    return None


async def answer_size(children: list[Child]) -> int:
    """Bytes of the answer to what is missing."""
    async with World.of(children) as world:
        fault = Fault()
        elements = await world.missing()
        if elements:
            await world.get(elements, fault)
        return fault.passed


@settings(deadline=None, max_examples=60)
@given(children)
def test_everything_asked_for_arrives_and_nothing_twice(children: list[Child]):
    async def main() -> None:
        async with World.of(children) as world:
            elements = await world.missing()
            if elements:
                assert await world.get(elements) == world.payload(elements)
            await world.check(has_all=True)
            left = [each for each in await world.missing() if world.payload([each])]
            assert not left

    run(main())


@settings(deadline=None, max_examples=60)
@given(children, st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_is_refused_and_writes_nothing_wrong(
    children: list[Child], place: float, bit: int
):
    async def main() -> None:
        size = await answer_size(children)
        if size == 0:
            return
        async with World.of(children) as world:
            elements = await world.missing()
            error = await fails(world, elements, Fault(flip=int(place * size) * 8 + bit))
            await world.check(has_all=False)
            # Only a size that nothing has to prove may be claimed at will: an answer that holds
            # the last chunk proves it.
            assert error is not None or any(not asks_for_the_end(world, e) for e in elements)
            await complete(world)

    run(main())


def asks_for_the_end(world: World, element: Element) -> bool:
    size = world.children[element.index - 1].size
    return max(0, -(-size // 1024) - 1) in element.ranges.truncate(size)


async def complete(world: World) -> None:
    """Fetch the rest over a stream without faults.

    A size that was claimed and never proven may have to be thrown away first, once a blob.
    """
    for _ in range(len(world.children) + 1):
        elements = await world.missing()
        if not elements:
            break
        error = await fails(world, elements, Fault())
        assert error is None or "try again" in str(error)
    await world.check(has_all=True)


@settings(deadline=None, max_examples=60)
@given(
    children,
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["finish", "reset", "close"]),
)
def test_a_cut_stream_keeps_what_was_proven(children: list[Child], place: float, end: str):
    async def main() -> None:
        size = await answer_size(children)
        if size == 0:
            return
        async with World.of(children) as world:
            elements = await world.missing()
            needed = world.payload(elements)
            fault = Fault(cut=int(place * size), end=end)
            error = await fails(world, elements, fault)
            assert isinstance(error, BlobsyncError)
            assert not isinstance(error, PeerDataError), "nobody sent anything wrong"
            await world.check(has_all=False)
            again = world.payload(await world.missing())
            # Of what arrived only the blob within which it ended, and its inner hashes, are lost;
            # of a larger one only the last group.
            lost = INLINE_SIZE_MAX + whole_size_max(world, elements)
            assert needed - again >= fault.passed - overhead(world, elements) - lost
            rest = await world.missing()
            assert await world.get(rest) == again
            await world.check(has_all=True)

    run(main())


def whole_size_max(world: World, elements: list[Element]) -> int:
    """Bytes of the largest blob that travels whole."""
    sizes = [world.children[e.index - 1].size for e in elements if e.ranges.is_all]
    return max((size for size in sizes if size <= 1 << 20), default=0)


def overhead(world: World, elements: list[Element]) -> int:
    """At most this many bytes of an answer are no content: size headers and inner hashes."""
    sizes = [world.children[element.index - 1].size for element in elements]
    return sum(8 + 64 * (size // 1024 + 12) for size in sizes)


@settings(deadline=None, max_examples=30)
@given(children, st.integers(0, 3))
def test_what_the_provider_lacks_is_said_and_the_rest_stays(children: list[Child], absent: int):
    """The answer ends where the first missing piece was due."""

    async def main() -> None:
        absent_hash = Hash(bytes([absent + 1]) * 32)
        async with World.of(children) as world:
            at = min(absent, len(children))
            hashes = [*world.hashes[:at], absent_hash, *world.hashes[at:]]
            world.root = await world.served.add_bytes(bytes(HashSeq(hashes)))
            before = [each for each in await world.missing() if each.index <= at]
            elements = [*before, Element(at + 1, absent_hash, ChunkRanges.all())]
            error = await fails(world, elements, Fault())
            assert isinstance(error, LookupError), error
            missing = [each for each in await world.missing() if each.index <= at]
            assert not missing, "what came before the gap is kept"
            try:
                await world.store.read(absent_hash)
            except BlobNotFoundError:
                return
            raise AssertionError("a blob that nobody has")

    run(main())
