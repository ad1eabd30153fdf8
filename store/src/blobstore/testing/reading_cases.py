"""Cases of the store contract: reading and exporting."""

from __future__ import annotations

from pathlib import Path

import pytest

import pybao
from blobstore.api import (
    ImportProgress,
    Store,
    WholeSource,
)
from blobstore.testing.contract_base import ContractBase
from blobstore.testing.data import (
    ABSENT,
    INTERESTING_SIZES,
    LARGE,
    names_in,
    pattern,
)


class ReadingCases(ContractBase):
    """Reading and exporting."""

    # Reading

    async def test_read_a_span(self, store: Store) -> None:
        for data in (pattern(5000), LARGE):
            hash = await store.add_bytes(data)
            spans = ((0, 1), (1023, 1025), (4999, 9999), (16_383, 40_000), (7, 7), (9, 3))
            for start, end in spans:
                assert await store.read(hash, start, end) == data[start:end]
            assert await store.read(hash, 4000) == data[4000:]
            assert await store.read(hash, len(data) - 1, 2**63) == data[-1:]
            assert await store.read(hash, len(data) + 5) == b""
            for start, end in ((-1, 5), (0, -1)):
                with pytest.raises(ValueError, match="negative"):
                    await store.read(hash, start, end)

    async def test_find_whole(self, store: Store) -> None:
        blobs = [b"small", b"", b"m" * 16_385, b"l" * 100_000, b"xl" * 100_000]
        hashes = await store.add_many(blobs)
        found = await store.find_whole([*hashes, ABSENT], size_max=100_000, bytes_max=1 << 20)
        assert [each and bytes_of(each) for each in found] == [*blobs[:4], None, None]
        for blob, each in zip(blobs[:4], found, strict=False):
            assert each is not None
            assert (each.size, each.outboard) == (len(blob), pybao.outboard(blob)[1])
        # It stops behind the blob with which there is enough, and reads at least one.
        found = await store.find_whole(hashes, size_max=100_000, bytes_max=6)
        assert [each and bytes_of(each) for each in found] == blobs[:3]
        assert len(await store.find_whole(hashes, size_max=100_000, bytes_max=0)) == 1
        assert await store.find_whole([], size_max=1, bytes_max=1) == []

    async def test_find_whole_leaves_out_changed_files(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"a" * 50_000)
        imported = await store.import_file(path)
        path.write_bytes(b"b" * 50_000)
        [found] = await store.find_whole([imported.hash], size_max=1 << 20, bytes_max=1 << 20)
        assert found is None or bytes_of(found) == b"a" * 50_000

    async def test_read_small_gives_what_is_inline(self, store: Store) -> None:
        hashes = await store.add_many([b"small", LARGE])
        assert await store.read_small([*hashes, ABSENT]) == [b"small", None, None]

    async def test_stat_many_and_list(self, store: Store) -> None:
        hashes = await store.add_many([b"1", LARGE, b"2"])
        stats = await store.stat_many([*hashes, ABSENT])
        assert [stat and stat.hash for stat in stats] == [*hashes, None]
        assert [stat.hash async for stat in store.list_blobs()] == sorted(hashes)

    @pytest.mark.parametrize("size", INTERESTING_SIZES)
    async def test_a_reader_can_be_encoded(self, store: Store, size: int) -> None:
        data = pattern(size)
        hash = await store.add_bytes(data)
        with await store.open_reader(hash) as reader:
            assert reader.available.is_all
            encoder = pybao.Encoder(hash, reader.size, [0], reader.data, reader.outboard)
            decoder = pybao.Decoder(hash, [0])
            while piece := encoder.next():
                decoder.feed(piece)
            decoder.finish()
        assert b"".join(piece for _, piece in decoder.take_pieces()) == data
        reader.close()

    async def test_a_reader_outlives_the_record(self, store: Store) -> None:
        hash = await store.add_bytes(LARGE)
        with await store.open_reader(hash) as reader:
            assert await store.delete([hash]) == 1
            data = pybao.read_verified(
                hash, reader.size, reader.data, reader.outboard, 0, reader.size
            )
        assert data == LARGE

    # Exporting

    @pytest.mark.parametrize("size", INTERESTING_SIZES)
    async def test_export(self, store: Store, tmp_path: Path, size: int) -> None:
        data = pattern(size)
        hash = await store.add_bytes(data)
        folder = tmp_path / "out"
        folder.mkdir()
        progress = ImportProgress()
        assert await store.export(hash, folder / "file", progress=progress) == size
        assert (folder / "file").read_bytes() == data
        assert progress.bytes_done == progress.bytes_total == size
        with pytest.raises(FileExistsError):
            await store.export(hash, folder / "file")
        (folder / "file").write_bytes(b"other")
        assert await store.export(hash, folder / "file", overwrite=True) == size
        assert (folder / "file").read_bytes() == data
        assert names_in(folder) == ["file"]

    async def test_export_replaces_nothing(self, store: Store, tmp_path: Path) -> None:
        hash = await store.add_bytes(LARGE)
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "link").symlink_to("nowhere")
        with pytest.raises(FileExistsError):
            await store.export(hash, folder / "link")
        with pytest.raises(FileNotFoundError):
            await store.export(hash, folder / "absent" / "file")
        assert names_in(folder) == ["link"]


def bytes_of(source: WholeSource) -> bytes:
    """All of a blob that was found."""
    return source.data if isinstance(source.data, bytes) else Path(source.data).read_bytes()
