"""Cases of the store contract: blobs being filled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore.codec.hash import Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import chunk_count
from blobstore.errors import (
    BlobError,
    BlobNotFoundError,
    PartialBusyError,
    VerificationError,
)
from blobstore.testing.contract_base import ContractBase
from blobstore.testing.data import (
    INTERESTING_SIZES,
    LARGE,
    LARGE_HASH,
    fill,
    pattern,
)

if TYPE_CHECKING:
    from pathlib import Path

    from blobstore.api import (
        Store,
    )


class PartialCases(ContractBase):
    """Blobs being filled."""

    async def test_a_partial_blob_grows_and_completes(self, store: Store) -> None:
        first, rest = ChunkRanges.of(0, 32), ChunkRanges.of(32)
        async with await store.open_partial(LARGE_HASH) as partial:
            assert (partial.size, partial.bitfield) == (None, ChunkRanges.empty())
            await fill(partial, LARGE, first)
            assert (partial.size, partial.size_proven) == (len(LARGE), False)
            assert partial.bitfield == first
            stat = await store.stat(LARGE_HASH)
            assert stat is not None
            assert (stat.is_complete, stat.size_proven, stat.bitfield) == (False, False, first)
        async with await store.open_partial(LARGE_HASH) as partial:
            assert (partial.size, partial.bitfield) == (len(LARGE), first)
            with pytest.raises(VerificationError):
                await partial.complete()
            await fill(partial, LARGE, rest)
            assert partial.size_proven
            await partial.complete()
        stat = await store.stat(LARGE_HASH)
        assert stat is not None
        assert stat.is_complete
        assert await store.read(LARGE_HASH) == LARGE
        assert await store.verify(LARGE_HASH) == ChunkRanges.all()

    @pytest.mark.parametrize("size", INTERESTING_SIZES)
    async def test_complete_at_every_size(self, store: Store, size: int) -> None:
        data = pattern(size)
        hash = Hash(pybao.hash(data))
        async with await store.open_partial(hash) as partial:
            await fill(partial, data)
            await partial.complete()
        assert await store.read(hash) == data
        assert (await store.gc()).blobs == 0

    @pytest.mark.parametrize("size", [1000, 100_000, 5_000_000])
    async def test_a_file_of_the_caller_is_published(
        self, store: Store, tmp_path: Path, size: int
    ) -> None:
        data = pattern(size)
        hash = Hash(pybao.hash(data))
        hidden, final = tmp_path / ".part", tmp_path / "final"
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT)
        partial = await store.open_partial(hash, data_fd=fd, path=hidden)
        os.close(fd)
        await fill(partial, data)

        def publish() -> Path:
            hidden.rename(final)
            return final

        await partial.complete(publish)
        await partial.close()
        assert final.read_bytes() == data
        assert await store.read(hash) == data

    async def test_each_path_has_its_own_bitfield(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "part"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        async with (
            await store.open_partial(LARGE_HASH) as owned,
            await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as own_file,
        ):
            await fill(owned, LARGE, ChunkRanges.of(0, 16))
            await fill(own_file, LARGE, ChunkRanges.of(16, 64))
            assert owned.bitfield == ChunkRanges.of(0, 16)
            assert own_file.bitfield == ChunkRanges.of(16, 64)
            stat = await store.stat(LARGE_HASH)
            assert stat is not None
            assert stat.bitfield == ChunkRanges.of(16, 64)
            assert stat.paths == (path,)
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as own_file:
            assert own_file.bitfield == ChunkRanges.of(16, 64)
        os.close(fd)

    async def test_another_file_at_the_path_counts_for_nothing(
        self, store: Store, tmp_path: Path
    ) -> None:
        path = tmp_path / "part"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as partial:
            await fill(partial, LARGE, ChunkRanges.of(0, 16))
        path.rename(tmp_path / "moved")
        other = os.open(path, os.O_RDWR | os.O_CREAT)
        async with await store.open_partial(LARGE_HASH, data_fd=other, path=path) as partial:
            assert partial.bitfield == ChunkRanges.empty()
        os.close(fd)
        os.close(other)

    async def test_a_partial_blob_has_one_owner(self, store: Store) -> None:
        async with await store.open_partial(LARGE_HASH):
            with pytest.raises(PartialBusyError):
                await store.open_partial(LARGE_HASH)
        async with await store.open_partial(LARGE_HASH) as partial:
            await partial.discard()
            with pytest.raises(BlobError):
                await partial.record(ChunkRanges.empty(), 5, size_proven=False)
        assert await store.stat(LARGE_HASH) is None

    async def test_whole_groups_of_a_partial_blob_are_served(self, store: Store) -> None:
        held = ChunkRanges.union_of([(0, 20), (96, None)])
        async with await store.open_partial(LARGE_HASH) as partial:
            with pytest.raises(BlobNotFoundError):
                await store.open_reader(LARGE_HASH)
            await fill(partial, LARGE, held)
            with await store.open_reader(LARGE_HASH) as reader:
                chunks = chunk_count(len(LARGE))
                assert reader.available == ChunkRanges((0, 16, 96, chunks))
                encoder = pybao.Encoder(
                    LARGE_HASH,
                    reader.size,
                    reader.available.boundaries,
                    reader.data,
                    reader.outboard,
                )
                while encoder.next():
                    pass
            assert await store.read(LARGE_HASH, 10, 16_384) == LARGE[10:16_384]
            assert await store.read(LARGE_HASH, 99_000) == LARGE[99_000:]
            for start, end in ((10, 16_385), (0, None), (50_000, 50_001)):
                with pytest.raises(BlobNotFoundError):
                    await store.read(LARGE_HASH, start, end)

    async def test_a_partial_blob_is_not_exported(self, store: Store, tmp_path: Path) -> None:
        async with await store.open_partial(LARGE_HASH) as partial:
            await fill(partial, LARGE, ChunkRanges.of(0, 16))
            with pytest.raises(BlobNotFoundError):
                await store.export(LARGE_HASH, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    async def test_claims_that_cannot_be(self, store: Store) -> None:
        async with await store.open_partial(LARGE_HASH) as partial:
            for proven, size in (
                (ChunkRanges.of(0, 99), len(LARGE)),
                (ChunkRanges.all(), len(LARGE)),
                (ChunkRanges.empty(), -1),
                (ChunkRanges.empty(), 2**63),
            ):
                with pytest.raises(ValueError, match=r"chunks beyond|no blob has"):
                    await partial.record(proven, size, size_proven=False)
            assert partial.bitfield == ChunkRanges.empty()

    async def test_another_size_starts_over(self, store: Store) -> None:
        async with await store.open_partial(LARGE_HASH) as partial:
            await partial.record(ChunkRanges.of(0, 16), 500_000, size_proven=False)
            await fill(partial, LARGE, ChunkRanges.of(16, 32))
            assert partial.bitfield == ChunkRanges.of(16, 32)
            await fill(partial, LARGE, ChunkRanges.last())
            assert partial.size_proven
            with pytest.raises(VerificationError):
                await partial.record(ChunkRanges.of(0, 16), 500_000, size_proven=False)
            assert partial.size == len(LARGE)
            await fill(partial, LARGE)
            await partial.complete()
        assert await store.read(LARGE_HASH) == LARGE

    async def test_a_descriptor_needs_a_path(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="path"):
            await store.open_partial(LARGE_HASH, path=tmp_path / "x")
        with pytest.raises(ValueError, match="path"):
            await store.open_partial(LARGE_HASH, data_fd=0)

    async def test_complete_beside_another_partial(self, store: Store) -> None:
        async with await store.open_partial(LARGE_HASH) as partial:
            await fill(partial, LARGE, ChunkRanges.of(0, 16))
            await store.add_bytes(LARGE)
            stat = await store.stat(LARGE_HASH)
            assert stat is not None
            assert stat.is_complete
            await fill(partial, LARGE)
            await partial.complete()
        assert await store.read(LARGE_HASH) == LARGE
