"""An unchanged file is not opened again, and a changed one always is."""

# ruff: noqa: ASYNC240 - a test may block its own loop

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

import pybao
from blobstore import (
    Hash,
    HashAndFormat,
    HashSeq,
    ImportedCollection,
    ImportMode,
    LmdbStore,
    catalog,
)
from blobstore.codec.hash import BlobFormat
from blobstore.files import Files
from blobstore.importing import BATCH_MIN, Importer
from blobstore.schema import (
    FOLDER_FILES_MAX,
    FORMAT_VERSION,
    REFERENCES_MAX,
    REMOVALS_KEY,
    VERSION_KEY,
    FolderRow,
    Table,
    decode_blob,
    encode_folder,
    encode_number,
    encode_path,
    folder_key,
    path_key,
)
from blobstore.stat_cache import get_folder
from blobstore.testing.data import LARGE, pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from blobstore.core import Core
    from blobstore.database import ReadTxn, WriteTxn

HUGE = 4_300_000
"""A file that is hashed by itself, with an outboard in a file of its own."""


class OpenedFiles(Files):
    """Remembers which files of the user were opened, one by one or together with others."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
        if "/tree/" in os.fspath(path):
            self.opened.append(Path(path).name)
        return super().open(path, flags, mode)

    def read_files(
        self, paths: Sequence[bytes], *, data_max: int, size_max: int
    ) -> list[tuple[bytes, bytes, bytes | None, bytes] | int]:
        self.opened += [Path(os.fsdecode(path)).name for path in paths]
        return super().read_files(paths, data_max=data_max, size_max=size_max)

    def taken(self) -> list[str]:
        """Those since the last call, sorted."""
        opened, self.opened = sorted(self.opened), []
        return opened


@pytest.fixture
def files() -> OpenedFiles:
    return OpenedFiles()


@pytest.fixture
async def store(tmp_path: Path, files: OpenedFiles) -> AsyncIterator[LmdbStore]:
    async with LmdbStore.open(tmp_path / "store", files=files) as store:
        yield store


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file seems to have been modified long ago."""
    monkeypatch.setattr("blobstore.importing.SETTLED_NS", -(10**18))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for number in range(3):
        folder = tree / f"folder {number}"
        folder.mkdir(parents=True)
        for name, size in (("empty", 0), ("small", 100), ("edge", 16384), ("large", 16385)):
            (folder / f"{name} {number}").write_bytes(pattern(size, number))
    (tree / "huge").write_bytes(pattern(HUGE))
    return tree


def core_of(store: LmdbStore) -> Core:
    return store._core  # pyright: ignore[reportPrivateUsage] - to look into the database


def write(store: LmdbStore, job: Callable[[WriteTxn], Any]) -> Any:
    return core_of(store).database.write(job)


def read(store: LmdbStore, job: Callable[[ReadTxn], Any]) -> Any:
    return core_of(store).database.read(job)


async def check(store: LmdbStore, collection: ImportedCollection, tree: Path) -> None:
    """A collection is what the tree is, and all of it can be read."""
    there = sorted(path for path in tree.rglob("*") if path.is_file())
    names = sorted(str(path.relative_to(tree.parent)).encode() for path in there)
    assert [file.name.encode() for file in collection.files] == names
    assert list(collection.names()) == [name.decode() for name in names]
    for file in collection.files:
        data = (tree.parent / file.name).read_bytes()
        assert (file.hash, file.size) == (pybao.hash(data), len(data))
        assert await store.read(file.hash) == data
    seq = HashSeq.from_bytes(await store.read(collection.hash))
    assert list(seq)[1:] == [file.hash for file in collection.files]


async def test_an_unchanged_tree_is_not_opened(
    store: LmdbStore, tree: Path, files: OpenedFiles
) -> None:
    first = await store.import_collection([tree])
    assert len(files.taken()) == 13
    rows = read(store, lambda txn: list(txn.scan(Table.FOLDERS)))
    before = store.transactions_committed
    again = await store.import_collection([tree])
    assert files.taken() == []
    assert again == first
    # Nothing is written but what protects the collection.
    assert store.transactions_committed == before + 1
    assert read(store, lambda txn: list(txn.scan(Table.FOLDERS))) == rows
    await check(store, again, tree)
    files.taken()
    # Single files are known as well, and the other way round.
    single = await store.import_files([tree / "huge", tree / "folder 1/small 1"])
    assert [file.name for file in single] == ["huge", "small 1"]
    assert files.taken() == []


async def test_only_what_changed_is_opened(
    store: LmdbStore, tree: Path, files: OpenedFiles
) -> None:
    await store.import_collection([tree])
    files.taken()
    (tree / "folder 0/small 0").write_bytes(b"changed")
    (tree / "folder 0/large 0").write_bytes(pattern(20_000, 9))
    (tree / "folder 1/new").write_bytes(b"new")
    (tree / "folder 2/edge 2").unlink()
    (tree / "folder 2/small 2").rename(tree / "folder 2/renamed")
    collection = await store.import_collection([tree])
    assert files.taken() == ["large 0", "new", "renamed", "small 0"]
    await check(store, collection, tree)
    files.taken()
    await store.import_collection([tree])
    assert files.taken() == []
    row = read(store, lambda txn: get_folder(txn, path_key(os.fsencode(tree / "folder 2"))))
    assert row.names.split(b"\0") == [b"empty 2", b"large 2", b"renamed"]


async def test_young_files_are_opened_until_they_are_old(
    store: LmdbStore, tree: Path, files: OpenedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobstore.importing.SETTLED_NS", 10**18)
    await store.import_collection([tree])
    assert read(store, lambda txn: txn.count(Table.FOLDERS)) == 0
    assert len(files.taken()) == 13
    await store.import_collection([tree])
    assert len(files.taken()) == 13
    monkeypatch.setattr("blobstore.importing.SETTLED_NS", -(10**18))
    await store.import_collection([tree])
    assert len(files.taken()) == 13
    await store.import_collection([tree])
    assert files.taken() == []


@pytest.mark.parametrize("how", ["gc", "delete"])
async def test_a_blob_that_is_gone_is_added_again(
    store: LmdbStore, tree: Path, files: OpenedFiles, how: str
) -> None:
    async with await store.temp_tag() as temp:
        first = await store.import_collection([tree], temp=temp)
        await store.set_tag("keep", HashAndFormat(first.files[1].hash))
    kept = first.files[1].name.rpartition("/")[2]
    if how == "gc":
        await store.gc()
    else:
        await store.delete([first.hash])
        await store.delete(sorted({file.hash for file in first.files} - {first.files[1].hash}))
    files.taken()
    again = await store.import_collection([tree])
    assert again == first
    opened = files.taken()
    assert kept not in opened
    assert "huge" in opened
    await check(store, again, tree)
    files.taken()
    await store.import_collection([tree])
    assert files.taken() == []


async def test_gc_forgets_folders_that_are_of_no_use(store: LmdbStore, tree: Path) -> None:
    async with await store.temp_tag() as temp:
        collection = await store.import_collection([tree], temp=temp)
    by_name = {file.name: file.hash for file in collection.files}
    await store.set_tag("one", HashAndFormat(by_name["tree/folder 1/small 1"]))
    # All have the empty file in common, which is always there.
    for number in (0, 2):
        (tree / f"folder {number}/empty {number}").unlink()
    await store.import_collection([tree])
    async with await store.temp_tag():
        pass
    await store.close()
    async with LmdbStore.open(store.path) as store:
        await store.gc(dry_run=True)
        assert read(store, lambda txn: txn.count(Table.FOLDERS)) == 4
        await store.gc()
        keys = read(store, lambda txn: list(txn.keys(Table.FOLDERS)))
        assert keys == [folder_key(path_key(os.fsencode(tree / "folder 1")), 0)]


async def test_more_copies_than_are_remembered(
    store: LmdbStore, tmp_path: Path, files: OpenedFiles
) -> None:
    """A copy beyond those that a record names is known as long as one of those is still there."""
    tree = tmp_path / "tree"
    tree.mkdir()
    count = REFERENCES_MAX + 4
    for number in range(count):
        (tree / f"{number:02}").write_bytes(LARGE)
    first = await store.import_collection([tree])
    assert len(files.taken()) == count
    assert await store.import_collection([tree]) == first
    assert files.taken() == []
    record = read(store, lambda txn: decode_blob(txn.get(Table.BLOBS, first.files[0].hash)))
    assert len(record.references) == REFERENCES_MAX
    for reference in record.references:
        Path(os.fsdecode(reference.path)).unlink()
    again = await store.import_collection([tree])
    assert len(files.taken()) == len(again.files) == count - REFERENCES_MAX
    await check(store, again, tree)


async def test_a_large_folder_takes_several_rows(
    store: LmdbStore, tmp_path: Path, files: OpenedFiles
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(FOLDER_FILES_MAX + 2):
        (tree / f"{number:05}").write_bytes(b"%d" % (number % 100))
    first = await store.import_collection([tree])
    assert read(store, lambda txn: txn.count(Table.FOLDERS)) == 2
    files.taken()
    assert await store.import_collection([tree]) == first
    assert files.taken() == []
    (tree / "00700").write_bytes(b"changed")
    await store.import_files([tree / "00700"])
    assert files.taken() == ["00700"]
    collection = await store.import_collection([tree])
    assert files.taken() == []
    assert collection.files[700].hash == pybao.hash(b"changed")
    for number in range(10):
        (tree / f"{number:05}").unlink()
    await store.import_collection([tree])
    assert files.taken() == []
    assert read(store, lambda txn: txn.count(Table.FOLDERS)) == 1


async def test_a_long_folder_is_remembered_in_between(
    store: LmdbStore, tree: Path, files: OpenedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that is cut off loses little of what it hashed."""
    monkeypatch.setattr("blobstore.importing.PARTIAL_BYTES", 1)
    monkeypatch.setattr("blobstore.importing.BATCH_FILES", BATCH_MIN)
    folder = tree / "folder 0"
    for number in range(20):
        (folder / f"more {number:02}").write_bytes(pattern(20_000, number))
    read_files = files.read_files
    calls = 0

    def fails_late(paths: Sequence[bytes], **sizes: int) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError(5, "on purpose")
        return read_files(paths, **sizes)

    monkeypatch.setattr(files, "read_files", fails_late)
    with pytest.raises(OSError, match="on purpose"):
        await store.import_collection([folder])
    files.taken()
    collection = await store.import_collection([folder])
    assert 0 < len(files.taken()) < 24 - BATCH_MIN
    assert len(collection.files) == 24


@pytest.mark.parametrize(
    "damage", [b"", b"x", bytes(20), bytes(8) + b"\1\0\0\0\xff\0\0\0" + bytes(200)]
)
async def test_a_row_that_makes_no_sense_is_none(
    store: LmdbStore, tree: Path, files: OpenedFiles, damage: bytes
) -> None:
    first = await store.import_collection([tree])
    key = folder_key(path_key(os.fsencode(tree / "folder 1")), 0)
    write(store, lambda txn: txn.put(Table.FOLDERS, key, damage))
    files.taken()
    assert await store.import_collection([tree]) == first
    assert files.taken() == ["edge 1", "empty 1", "large 1", "small 1"]
    assert await store.import_collection([tree]) == first
    assert files.taken() == []


async def test_a_row_without_its_other_part_is_none(store: LmdbStore, tree: Path) -> None:
    key = path_key(os.fsencode(tree))
    row = FolderRow(0, 2, b"huge", bytes(40), bytes(32))
    write(store, lambda txn: txn.put(Table.FOLDERS, folder_key(key, 0), encode_folder(row)))
    assert read(store, lambda txn: get_folder(txn, key)) is None
    other = FolderRow(1, 2, b"other", bytes(40), bytes(32))
    write(store, lambda txn: txn.put(Table.FOLDERS, folder_key(key, 1), encode_folder(other)))
    assert read(store, lambda txn: get_folder(txn, key)) is None


async def test_what_verify_refuses_is_hashed_again(
    store: LmdbStore, tree: Path, files: OpenedFiles
) -> None:
    """A file that was damaged behind its identity is no longer taken for what it was."""
    collection = await store.import_collection([tree])
    path = tree / "folder 1/large 1"
    hash = next(file.hash for file in collection.files if file.name.endswith("large 1"))
    record = read(store, lambda txn: decode_blob(txn.get(Table.BLOBS, hash)))
    with path.open("r+b") as file:
        file.write(b"damage")
    # As if the times had not shown it.
    identity = record.references[0].identity._replace(
        mtime_ns=path.stat().st_mtime_ns, ctime_ns=path.stat().st_ctime_ns
    )

    def forge(txn: WriteTxn) -> None:
        reference = replace(record.references[0], identity=identity)
        catalog.put_blob(txn, hash, replace(record, references=(reference,)))
        key = path_key(os.fsencode(path.parent))
        row = get_folder(txn, key)
        assert row is not None
        old = record.references[0].identity.encode()
        row = replace(row, identities=row.identities.replace(old, identity.encode()))
        txn.put(Table.FOLDERS, folder_key(key, 0), encode_folder(row))

    write(store, forge)
    files.taken()
    await store.import_collection([tree])
    assert files.taken() == []
    assert not (await store.verify(hash)).is_all
    files.taken()
    collection = await store.import_collection([tree])
    assert "large 1" in files.taken()
    await check(store, collection, tree)


async def test_copies_are_made_of_what_was_only_referenced(
    store: LmdbStore, tree: Path, files: OpenedFiles
) -> None:
    first = await store.import_collection([tree])
    files.taken()
    assert await store.import_collection([tree], mode=ImportMode.COPY) == first
    assert files.taken() == ["huge", "large 0", "large 1", "large 2"]
    shutil.rmtree(tree)
    for file in first.files:
        assert len(await store.read(file.hash)) == file.size


async def test_what_is_new_is_kept_while_others_are_added(
    store: LmdbStore, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GC of another process, after each batch and before the collection is protected."""
    monkeypatch.setattr("blobstore.importing.BATCH_FILES", BATCH_MIN)
    removed: list[int] = []
    protect = Importer._protect  # pyright: ignore[reportPrivateUsage] - where others come between

    def collect_and_protect(self: Importer, *args: Any) -> bool:
        program = (
            "import asyncio, sys; from blobstore import LmdbStore\n"
            "async def main():\n"
            "    async with LmdbStore.open(sys.argv[1]) as store:\n"
            "        print((await store.gc()).blobs)\n"
            "asyncio.run(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(store.path)],
            check=True,
            capture_output=True,
            text=True,
        )
        removed.append(int(done.stdout))
        return protect(self, *args)

    monkeypatch.setattr(Importer, "_protect", collect_and_protect)
    async with await store.temp_tag() as temp:
        first = await store.import_collection([tree], temp=temp)
        assert removed == [0]
        assert read(store, lambda txn: txn.count(Table.RUNS)) == 0
    # What is known and not protected goes once; then it is added again, and protected.
    again = await store.import_collection([tree])
    assert again == first
    assert removed[1] > 0
    assert removed[2:] == [0]
    await check(store, again, tree)
    assert (await store.gc()).blobs == 0


async def test_a_lost_import_leaves_its_runs_to_gc(
    store: LmdbStore, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Importer, *args: Any) -> bool:
        raise OSError(5, "on purpose")

    monkeypatch.setattr(Importer, "_protect", fails)
    async with await store.temp_tag() as temp:
        with pytest.raises(OSError, match="on purpose"):
            await store.import_collection([tree], temp=temp)
        assert read(store, lambda txn: txn.count(Table.RUNS)) > 0
        assert (await store.gc()).blobs == 0
    assert read(store, lambda txn: txn.count(Table.RUNS)) == 0
    assert (await store.gc()).blobs > 0


async def test_a_store_of_version_1_is_upgraded(tmp_path: Path, tree: Path) -> None:
    path = tmp_path / "store"
    async with LmdbStore.open(path) as store:
        first = await store.import_collection([tree])
        await store.set_tag("x", HashAndFormat(first.hash, BlobFormat.HASH_SEQ))
        young = tree / "folder 2/large 2"

        def to_version_1(txn: WriteTxn) -> None:
            for hash, value in list(txn.scan(Table.BLOBS)):
                for reference in decode_blob(value).references:
                    if reference.path != os.fsencode(young):
                        key = path_key(reference.path)
                        row = encode_path(Hash(hash), reference.identity)
                        txn.put(Table.PATHS, key, row)
            txn.put(Table.META, VERSION_KEY, encode_number(1))
            txn.delete(Table.META, REMOVALS_KEY)

        write(store, to_version_1)
    with lmdb.open(str(path / "blobs.lmdb"), subdir=False, max_dbs=20) as environment:
        for table in (Table.FOLDERS, Table.RUNS):
            database = environment.open_db(table.value)
            with environment.begin(write=True) as txn:
                txn.drop(database)
    files = OpenedFiles()
    async with LmdbStore.open(path, files=files) as store:
        version = read(store, lambda txn: txn.get(Table.META, VERSION_KEY))
        assert version == encode_number(FORMAT_VERSION)
        assert read(store, lambda txn: txn.count(Table.PATHS)) == 0
        # Version 1 remembered larger files only, and no young ones.
        again = await store.import_collection([tree])
        opened = files.taken()
        assert "large 2" in opened
        assert not {"huge", "large 0", "large 1"}.intersection(opened)
        assert again == first
        await check(store, again, tree)
        files.taken()
        await store.import_collection([tree])
        assert files.taken() == []
