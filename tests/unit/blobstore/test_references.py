"""Files of the user: served while they are what was imported, never once they are not."""

# ruff: noqa: ASYNC240 - a test may block its own loop

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore import (
    ChunkRanges,
    Hash,
    HashAndFormat,
    ImportMode,
    LmdbStore,
    Location,
    VerifiedFile,
)
from blobstore.errors import (
    FileChangedError,
    ImportFileError,
    StoreDamagedError,
    VerificationError,
)
from blobstore.files import Files
from blobstore.folder import DATA, OUTBOARD
from blobstore.schema import REFERENCES_MAX
from blobstore.testing.data import LARGE, LARGE_HASH, names_in, pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HUGE = pattern(5_000_000)
"""Its outboard is a file."""


class CountingFiles(Files):
    """Remembers which files were opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
        self.opened.append(os.fspath(path))
        return super().open(path, flags, mode)


def make_old(path: Path) -> None:
    """Let a file look as if it was modified an hour ago; its ctime cannot be moved."""
    info = path.stat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns - 3_600_000_000_000))


@pytest.fixture
def files() -> CountingFiles:
    return CountingFiles()


@pytest.fixture
async def store(tmp_path: Path, files: CountingFiles) -> AsyncIterator[LmdbStore]:
    async with LmdbStore.open(tmp_path / "store", files=files) as store:
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    return path


async def test_no_second_copy(store: LmdbStore, path: Path) -> None:
    await store.import_file(path)
    stat = await store.stat(LARGE_HASH)
    assert stat is not None
    assert stat.location is Location.REFERENCED
    assert stat.paths == (path,)
    assert names_in(store.path / DATA) == []


@pytest.mark.parametrize("size", [100_000, 5_000_000])
async def test_a_copy_is_the_stores_own(store: LmdbStore, path: Path, size: int) -> None:
    path.write_bytes(pattern(size))
    imported = await store.import_file(path, mode=ImportMode.COPY)
    stat = await store.stat(imported.hash)
    assert stat is not None
    assert stat.location is Location.OWNED
    assert len(names_in(store.path / DATA)) == 1
    # The same again does not leave a second copy.
    await store.import_file(path, mode=ImportMode.COPY)
    assert len(names_in(store.path / DATA)) == 1
    assert len(names_in(store.path / OUTBOARD)) == (size > 4_200_000)


@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "remove", "touch"])
async def test_a_changed_file_is_not_served(store: LmdbStore, path: Path, change: str) -> None:
    await store.import_file(path)
    match change:
        case "append":
            path.write_bytes(LARGE + b"x")
        case "rewrite":
            make_old(path)
            path.write_bytes(LARGE[::-1])
        case "replace":
            path.rename(path.with_name("old"))
            path.write_bytes(LARGE)
        case "remove":
            path.unlink()
        case _:
            make_old(path)
    with pytest.raises(FileChangedError):
        await store.read(LARGE_HASH, 0, 10)
    with pytest.raises(FileChangedError):
        await store.open_reader(LARGE_HASH)
    with pytest.raises(FileChangedError):
        await store.export(LARGE_HASH, path.with_name("out"))
    assert not path.with_name("out").exists()


async def test_a_change_without_a_trace_is_found_by_the_hash(
    store: LmdbStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that returns other bytes, with the same times: the data itself tells."""
    await store.import_file(path)
    stat = path.stat()
    damaged = bytearray(LARGE)
    damaged[50_000] ^= 1
    path.write_bytes(damaged)
    monkeypatch.setattr(Files, "fstat", lambda self, fd: stat)
    assert await store.read(LARGE_HASH, 0, 16_384) == LARGE[:16_384]
    with pytest.raises(VerificationError):
        await store.read(LARGE_HASH)
    with pytest.raises(VerificationError):
        await store.export(LARGE_HASH, path.with_name("out"))
    assert not path.with_name("out").exists()
    with await store.open_reader(LARGE_HASH) as reader:
        encoder = pybao.Encoder(LARGE_HASH, reader.size, [0], reader.data, reader.outboard)
        with pytest.raises(pybao.EncodeError):
            while encoder.next():
                pass


async def test_another_file_stands_in(store: LmdbStore, path: Path, tmp_path: Path) -> None:
    others = [tmp_path / f"copy {number}" for number in range(3)]
    for other in (path, *others):
        other.write_bytes(LARGE)
        await store.import_file(other)
    stat = await store.stat(LARGE_HASH)
    assert stat is not None
    assert stat.paths == (*reversed(others), path)
    for other in others:
        other.write_bytes(b"changed")
    assert await store.read(LARGE_HASH) == LARGE
    assert await store.verify(LARGE_HASH) == ChunkRanges.all()
    stat = await store.stat(LARGE_HASH)
    assert stat is not None
    assert stat.paths == (path,)


async def test_the_newest_files_are_remembered(store: LmdbStore, tmp_path: Path) -> None:
    paths = [tmp_path / f"copy {number}" for number in range(REFERENCES_MAX + 3)]
    for path in paths:
        path.write_bytes(LARGE)
        await store.import_file(path)
    stat = await store.stat(LARGE_HASH)
    assert stat is not None
    assert stat.paths == tuple(reversed(paths[-REFERENCES_MAX:]))


async def test_an_own_copy_stands_in(store: LmdbStore, path: Path) -> None:
    await store.import_file(path)
    await store.add_bytes(LARGE)
    path.unlink()
    assert await store.read(LARGE_HASH) == LARGE


async def test_importing_again_mends(store: LmdbStore, path: Path) -> None:
    for data in (LARGE, HUGE):
        path.write_bytes(data)
        hash = (await store.import_file(path, mode=ImportMode.COPY)).hash
        for kind in (DATA, OUTBOARD):
            for name in names_in(store.path / kind):
                (store.path / kind / name).unlink()
        with pytest.raises(StoreDamagedError):
            await store.read(hash)
        await store.import_file(path, mode=ImportMode.COPY)
        assert await store.read(hash) == data


class Settled:
    """Lets every file seem to have been modified long ago."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("blobstore.importing.SETTLED_NS", -(10**18))


async def test_an_unchanged_file_is_not_hashed_again(
    store: LmdbStore, path: Path, files: CountingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settled(monkeypatch)
    temp = await store.temp_tag()
    first = await store.import_file(path, temp=temp)
    files.opened.clear()
    assert await store.import_file(path) == first
    assert (await store.import_collection([path])).files == (first,)
    assert str(path) not in files.opened
    # It is kept by the second import as by any other.
    await temp.close()
    assert (await store.gc()).kept == 3
    path.write_bytes(LARGE[::-1])
    assert (await store.import_file(path)).hash == pybao.hash(LARGE[::-1])
    assert str(path) in files.opened


async def test_a_file_modified_just_now_is_hashed_again(
    store: LmdbStore, path: Path, files: CountingFiles
) -> None:
    """Its times may be too coarse to show the next change."""
    await store.import_file(path)
    files.opened.clear()
    await store.import_file(path)
    assert str(path) in files.opened


async def test_a_forgotten_blob_is_hashed_again(
    store: LmdbStore, path: Path, files: CountingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settled(monkeypatch)
    await store.import_file(path)
    await store.delete([LARGE_HASH])
    assert path.read_bytes() == LARGE
    files.opened.clear()
    await store.import_file(path)
    assert str(path) in files.opened
    assert await store.read(LARGE_HASH) == LARGE


class ChangingFiles(Files):
    """A file that grows by a byte whenever it was looked at."""

    def __init__(self, path: Path, times: int) -> None:
        self._path = path
        self._times = times

    def fstat(self, fd: int) -> os.stat_result:
        result = super().fstat(fd)
        if self._times and os.path.samestat(result, self._path.stat()):
            self._times -= 1
            with self._path.open("ab") as file:
                file.write(b"x")
        return result


@pytest.mark.parametrize("size", [100, 100_000, 5_000_000])
@pytest.mark.parametrize("mode", ImportMode)
async def test_a_file_that_changes_meanwhile(tmp_path: Path, size: int, mode: ImportMode) -> None:
    path = tmp_path / "growing"
    path.write_bytes(pattern(size))
    async with LmdbStore.open(tmp_path / "s1", files=ChangingFiles(path, 2)) as store:
        imported = await store.import_file(path, mode=mode)
        assert imported.hash == pybao.hash(path.read_bytes())
        assert await store.read(imported.hash) == path.read_bytes()
    async with LmdbStore.open(tmp_path / "s2", files=ChangingFiles(path, 1000)) as store:
        with pytest.raises(ImportFileError, match="changes"):
            await store.import_file(path, mode=mode)
        with pytest.raises(ImportFileError, match="changes"):
            await store.import_collection([path], mode=mode)
        assert [stat async for stat in store.list_blobs()] == []
        assert names_in(store.path / DATA) == names_in(store.path / OUTBOARD) == []


async def test_the_store_leaves_itself_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    async with LmdbStore.open(tmp_path / "store") as store:
        collection = await store.import_collection([tmp_path])
    assert [file.name for file in collection.files] == [f"{tmp_path.name}/file"]
    assert collection.skipped == (f"{tmp_path / 'store'}: the store itself",)


async def test_a_tree_takes_few_transactions(tmp_path: Path) -> None:
    for number in range(20_000):
        folder = tmp_path / "tree" / str(number % 100)
        if number < 100:
            folder.mkdir(parents=True)
        (folder / str(number)).write_bytes(b"%d" % number + bytes(number % 7 == 0) * 20_000)
    async with LmdbStore.open(tmp_path / "store") as store:
        before = store.transactions_committed
        collection = await store.import_collection([tmp_path / "tree"])
        assert store.transactions_committed - before <= 100
        assert len(collection.files) == 20_000
        assert len([stat async for stat in store.list_blobs()]) == 20_002


@pytest.mark.parametrize("count", [2, 30])
async def test_verified_files_are_synced(tmp_path: Path, count: int) -> None:
    """A few one by one, many by syncing their file system."""
    synced: list[str] = []

    class Spy(Files):
        def sync_data(self, fd: int) -> None:
            synced.append("one")
            super().sync_data(fd)

        def sync_file_system(self, fd: int) -> bool:
            synced.append("all")
            return super().sync_file_system(fd)

    async with LmdbStore.open(tmp_path / "store", files=Spy()) as store:
        received: list[VerifiedFile] = []
        for number in range(count):
            data = pattern(20_000, number)
            root, outboard = pybao.outboard(data)
            path = tmp_path / str(number)
            path.write_bytes(data)
            fd = os.open(path, os.O_RDWR)
            received.append(VerifiedFile(Hash(root), len(data), outboard, path, fd))
        before = store.transactions_committed
        await store.add_verified([(Hash(pybao.hash(b"x")), b"x")], received)
        assert store.transactions_committed == before + 1
        for file in received:
            os.close(file.fd)
            assert await store.read(file.hash) == file.path.read_bytes()
            assert file.hash in {stat.hash async for stat in store.list_blobs()}
    assert synced[0] == ("one" if count == 2 else "all")


async def test_gc_never_touches_files_of_the_user(store: LmdbStore, path: Path) -> None:
    temp = await store.temp_tag()
    await store.import_file(path, temp=temp)
    await temp.close()
    report = await store.gc()
    assert (report.blobs, report.files_removed) == (1, 0)
    assert path.read_bytes() == LARGE


async def test_a_hash_seq_that_changed_is_reported(store: LmdbStore, tmp_path: Path) -> None:
    path = tmp_path / "seq"
    path.write_bytes(bytes(32) * 1000)
    imported = await store.import_file(path)
    await store.set_tag("seq", HashAndFormat.from_text(f"s{imported.hash}"))
    path.write_bytes(b"changed")
    report = await store.gc()
    assert report.unreadable == (imported.hash,)
    assert report.kept == 1
