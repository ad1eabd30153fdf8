"""Partial blobs on disk: which claims survive what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore import ChunkRanges, Hash, HashAndFormat, LmdbStore
from blobstore.errors import BlobNotFoundError, FileChangedError
from blobstore.files import Files
from blobstore.folder import DATA, OUTBOARD
from blobstore.testing.data import LARGE, LARGE_HASH, fill, names_in, pattern

if TYPE_CHECKING:
    from pathlib import Path

HELD = ChunkRanges.of(0, 64)
BOOT_1, BOOT_2 = b"1" * 16, b"2" * 16


async def begin(path: Path, *, boot: bytes = BOOT_1) -> None:
    """A store with a tagged partial blob."""
    async with LmdbStore.open(path, boot=boot) as store:
        await store.set_tag("wanted", HashAndFormat(LARGE_HASH))
        async with await store.open_partial(LARGE_HASH) as partial:
            await fill(partial, LARGE, HELD)


def only_file(path: Path, kind: str) -> Path:
    (name,) = names_in(path / kind)
    return path / kind / name


async def resumed(path: Path, *, boot: bytes = BOOT_1) -> ChunkRanges:
    """The bitfield that the next one finds."""
    async with (
        LmdbStore.open(path, boot=boot) as store,
        await store.open_partial(LARGE_HASH) as partial,
    ):
        return partial.bitfield


async def test_within_one_boot_nothing_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(tmp_path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(pybao, "valid_ranges", never)
    monkeypatch.setattr(pybao, "outboard_fd", never)
    assert await resumed(tmp_path) == HELD


async def test_after_a_reboot_claims_are_hashed(tmp_path: Path) -> None:
    """A power cut took what the page cache had not written: half of the data."""
    await begin(tmp_path)
    with only_file(tmp_path, DATA).open("r+b") as file:
        file.seek(32 * 1024)
        file.write(bytes(32 * 1024))
    async with LmdbStore.open(tmp_path, boot=BOOT_2) as store:
        stat = await store.stat(LARGE_HASH)
        assert stat is not None
        assert stat.bitfield == ChunkRanges.empty()
        with pytest.raises(BlobNotFoundError):
            await store.open_reader(LARGE_HASH)
    assert await resumed(tmp_path, boot=BOOT_2) == ChunkRanges.of(0, 32)
    async with LmdbStore.open(tmp_path, boot=BOOT_2) as store:
        stat = await store.stat(LARGE_HASH)
        assert stat is not None
        assert stat.bitfield == ChunkRanges.of(0, 32)


async def test_after_a_reboot_all_may_be_well(tmp_path: Path) -> None:
    await begin(tmp_path)
    assert await resumed(tmp_path, boot=BOOT_2) == HELD
    async with LmdbStore.open(tmp_path, boot=BOOT_2) as store:
        assert await store.read(LARGE_HASH, 0, 1000) == LARGE[:1000]


async def test_data_that_was_cut_is_hashed(tmp_path: Path) -> None:
    await begin(tmp_path)
    os.truncate(only_file(tmp_path, DATA), 40_000)
    assert await resumed(tmp_path) == ChunkRanges.of(0, 32)


@pytest.mark.parametrize("kind", [DATA, OUTBOARD])
async def test_a_lost_file_starts_over(tmp_path: Path, kind: str) -> None:
    await begin(tmp_path)
    only_file(tmp_path, kind).unlink()
    async with LmdbStore.open(tmp_path, boot=BOOT_1) as store:
        async with await store.open_partial(LARGE_HASH) as partial:
            assert partial.bitfield == ChunkRanges.empty()
            assert partial.size is None
            await fill(partial, LARGE)
            await partial.complete()
        assert await store.read(LARGE_HASH) == LARGE
        assert len(names_in(tmp_path / DATA)) == 1
        assert names_in(tmp_path / OUTBOARD) == []


async def test_another_file_with_the_same_inode_number(tmp_path: Path) -> None:
    """ext4 gives the number of a removed file to the next one; it may be as long as the old."""

    class Reused(Files):
        generations = 7

        def generation(self, fd: int) -> int:
            return self.generations

    path = tmp_path / "part"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    async with LmdbStore.open(tmp_path / "store", files=Reused()) as store:
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as partial:
            await fill(partial, LARGE, HELD)
        Reused.generations = 8
        stat = await store.stat(LARGE_HASH)
        assert stat is not None
        assert stat.bitfield == ChunkRanges.empty()
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as partial:
            assert partial.bitfield == ChunkRanges.empty()
    os.close(fd)


async def test_an_outboard_that_was_lost_after_a_reboot(tmp_path: Path) -> None:
    await begin(tmp_path)
    only_file(tmp_path, OUTBOARD).write_bytes(b"")
    assert await resumed(tmp_path, boot=BOOT_2) == ChunkRanges.empty()


async def test_complete_leaves_no_files_behind(tmp_path: Path) -> None:
    for size in (1000, 100_000, 5_000_000):
        data = pattern(size)
        hash = Hash(pybao.hash(data))
        store_path = tmp_path / str(size)
        async with LmdbStore.open(store_path) as store:
            for _ in range(2):
                async with await store.open_partial(hash) as partial:
                    await fill(partial, data)
                    await partial.complete()
            assert len(names_in(store_path / DATA)) == (size > 16_384)
            assert len(names_in(store_path / OUTBOARD)) == (size > 4_200_000)
            assert (await store.gc()).files_removed == 0
            assert await store.read(hash) == data


async def test_discard_leaves_the_users_file(tmp_path: Path) -> None:
    path = tmp_path / "part"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    async with LmdbStore.open(tmp_path / "store") as store:
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as partial:
            await fill(partial, LARGE, HELD)
            await partial.discard()
        async with await store.open_partial(LARGE_HASH) as partial:
            await fill(partial, LARGE, HELD)
            await partial.discard()
        assert names_in(tmp_path / "store" / OUTBOARD) == []
        assert names_in(tmp_path / "store" / DATA) == []
        assert await store.stat(LARGE_HASH) is None
    os.close(fd)
    assert path.stat().st_size == HELD.bytes_within(len(LARGE))


async def test_publish_to_another_file_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "part", tmp_path / "other"
    other.write_bytes(LARGE)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    async with LmdbStore.open(tmp_path / "store") as store:
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=path) as partial:
            await fill(partial, LARGE)
            with pytest.raises(FileChangedError):
                await partial.complete(lambda: other)
            stat = await store.stat(LARGE_HASH)
            assert stat is not None
            assert not stat.is_complete
            await partial.complete()
        assert await store.read(LARGE_HASH) == LARGE
        stat = await store.stat(LARGE_HASH)
        assert stat is not None
        assert stat.paths == (path,)
    os.close(fd)


async def test_a_published_file_found_again_keeps_its_bitfield(tmp_path: Path) -> None:
    """Killed between the rename and the record: the file is known by its inode, not its path."""
    hidden, final = tmp_path / ".part", tmp_path / "final"
    fd = os.open(hidden, os.O_RDWR | os.O_CREAT)
    async with LmdbStore.open(tmp_path / "store") as store:
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=hidden) as partial:
            await fill(partial, LARGE)
        hidden.rename(final)
        async with await store.open_partial(LARGE_HASH, data_fd=fd, path=hidden) as partial:
            assert partial.bitfield == ChunkRanges.of(0, 98)
            await partial.complete(lambda: final)
        assert await store.read(LARGE_HASH) == LARGE
    os.close(fd)


async def test_gc_sweeps_what_an_interrupted_fetch_left(tmp_path: Path) -> None:
    await begin(tmp_path)
    async with LmdbStore.open(tmp_path, boot=BOOT_1) as store:
        assert (await store.gc()).blobs == 0
        await store.delete_tag("wanted")
        report = await store.gc()
        assert (report.blobs, report.files_removed) == (1, 2)
        assert names_in(tmp_path / DATA) == names_in(tmp_path / OUTBOARD) == []
