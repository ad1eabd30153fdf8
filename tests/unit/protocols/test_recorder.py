"""What one kill can cost: bytes that are received and not recorded, in all streams together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from blobstore import ChunkRanges, Hash, MemStore
from blobsync.protocols.blobs.pumps import BlobBody, Element
from blobsync.protocols.blobs.recorder import UNRECORDED_MAX, Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blobstore import PartialBlob

GROUP = 16 * 1024
SIZE = 64 << 20


class Body(BlobBody):
    """A body that receives exactly what it is told to, from a chunk on."""

    def __init__(self, start: int) -> None:
        self.element = Element(0, Hash(b"\7" * 32), ChunkRanges.of(start, start + 16_384))
        self.size = SIZE
        self._start = start
        self._written = 0

    def open(self, data_fd: int, outboard_fd: int | None) -> None:
        raise NotImplementedError

    async def run(self, max_bytes: int | None = None) -> None:
        assert max_bytes is not None
        self._written += max_bytes
        await asyncio.sleep(0)

    async def settle(self) -> None:
        pass

    @property
    def is_done(self) -> bool:
        return self._written >= 16 << 20

    @property
    def bytes_written(self) -> int:
        return self._written

    @property
    def proven(self) -> ChunkRanges:
        chunks = self._written // GROUP * 16
        return ChunkRanges.of(self._start, self._start + chunks) if chunks else ChunkRanges.empty()

    @property
    def size_proven(self) -> bool:
        return False


@pytest.fixture
async def partial() -> AsyncIterator[PartialBlob]:
    async with MemStore() as store, await store.open_partial(Hash(b"\7" * 32)) as partial:
        yield partial


@pytest.mark.parametrize("streams", [1, 2, 4])
async def test_no_more_than_the_limit_is_ever_unrecorded(partial: PartialBlob, streams: int):
    recorder = Recorder()
    bodies = [Body(i * 16_384) for i in range(streams)]

    def check() -> None:
        written = sum(body.bytes_written for body in bodies)
        recorded = partial.bitfield.bytes_within(SIZE) if partial.bitfield else 0
        assert written - recorded <= UNRECORDED_MAX

    async def receive(body: Body) -> None:
        piece = recorder.add(body, partial)
        while not body.is_done:
            left = (16 << 20) - body.bytes_written
            await body.run(await recorder.grant(piece, left, streams))
            check()
            recorder.end_step(piece)
        await recorder.remove(piece)

    recording = asyncio.ensure_future(recorder.run())
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for body in bodies:
            tasks.create_task(receive(body))
    recording.cancel()
    await asyncio.wait({recording})
    assert recorder.bytes_received == sum(body.bytes_written for body in bodies)
    assert partial.bitfield == ChunkRanges.of(0, streams * 16_384)


async def test_what_is_received_and_not_written_counts(partial: PartialBlob):
    class Ahead(Body):
        """Its last 256 KiB are never written before the next step."""

        @property
        def bytes_written(self) -> int:
            return max(0, self._written - (256 << 10))

        @property
        def bytes_received(self) -> int:
            return self._written

    recorder = Recorder(1 << 20)
    body = Ahead(0)
    piece = recorder.add(body, partial)
    for _ in range(2):
        await body.run(await recorder.grant(piece, 1 << 20, 1))
        recorder.end_step(piece)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await recorder.grant(piece, 1 << 20, 1)
    assert piece.granted == 1 << 20


async def test_a_body_that_ends_early_gives_its_grant_back(partial: PartialBlob):
    recorder = Recorder(1 << 20)
    first, second = Body(0), Body(16_384)
    piece = recorder.add(first, partial)
    assert await recorder.grant(piece, 1 << 20, 1) == 512 << 10
    assert await recorder.grant(piece, 1 << 20, 1) == 512 << 10
    await recorder.remove(piece)
    other = recorder.add(second, partial)
    async with asyncio.timeout(30):
        assert await recorder.grant(other, 1, 1) == 1
