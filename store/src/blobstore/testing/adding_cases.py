"""Cases of the store contract: adding and importing."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore.api import (
    INLINE_SIZE_MAX,
    ImportMode,
    ImportProgress,
    Location,
    Store,
    VerifiedFile,
)
from blobstore.codec.collection import Collection
from blobstore.codec.hash import EMPTY_HASH, Hash
from blobstore.codec.hashseq import HashSeq
from blobstore.codec.ranges import ChunkRanges
from blobstore.errors import (
    BlobNotFoundError,
    FileChangedError,
    ImportFileError,
    VerificationError,
)
from blobstore.testing.contract_base import ContractBase
from blobstore.testing.data import (
    ABSENT,
    INTERESTING_SIZES,
    LARGE,
    make_file,
    names_in,
    pattern,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class AddingCases(ContractBase):
    """Adding and importing."""

    # Adding

    @pytest.mark.parametrize("size", INTERESTING_SIZES)
    async def test_bytes_come_back(self, store: Store, size: int) -> None:
        data = pattern(size)
        hash = await store.add_bytes(data)
        assert hash == pybao.hash(data)
        assert await store.read(hash) == data
        stat = await store.stat(hash)
        assert stat is not None
        assert (stat.size, stat.size_proven, stat.is_complete) == (size, True, True)
        assert stat.bitfield.is_all
        expected = Location.INLINE if size <= INLINE_SIZE_MAX else Location.OWNED
        assert stat.location is expected

    async def test_the_empty_blob_is_always_there(self, store: Store, tmp_path: Path) -> None:
        stat = await store.stat(EMPTY_HASH)
        assert stat is not None
        assert stat.is_complete
        assert await store.read(EMPTY_HASH) == b""
        assert await store.read_small([EMPTY_HASH]) == [b""]
        assert await store.verify(EMPTY_HASH) == ChunkRanges.all()
        with await store.open_reader(EMPTY_HASH) as reader:
            assert (reader.size, reader.data, reader.outboard) == (0, b"", b"")
        assert await store.export(EMPTY_HASH, tmp_path / "empty") == 0
        assert (tmp_path / "empty").read_bytes() == b""
        assert await store.add_bytes(b"") == EMPTY_HASH
        assert [stat async for stat in store.list_blobs()] == []

    async def test_unknown_hashes(self, store: Store, tmp_path: Path) -> None:
        assert await store.stat(ABSENT) is None
        assert await store.read_small([ABSENT]) == [None]
        with pytest.raises(BlobNotFoundError):
            await store.read(ABSENT)
        with pytest.raises(LookupError):
            await store.open_reader(ABSENT)
        with pytest.raises(BlobNotFoundError):
            await store.export(ABSENT, tmp_path / "out")
        with pytest.raises(BlobNotFoundError):
            await store.verify(ABSENT)
        assert "out" not in names_in(tmp_path)
        assert await store.delete([ABSENT]) == 0

    async def test_add_many_keeps_the_order(self, store: Store) -> None:
        blobs = [pattern(size, seed) for size in (0, 5, 20_000, 700) for seed in range(3)]
        blobs += blobs[:2]
        hashes = await store.add_many(blobs)
        assert hashes == [pybao.hash(data) for data in blobs]
        assert [await store.read(hash) for hash in hashes] == blobs
        assert await store.add_many([]) == []

    @pytest.mark.parametrize("size", INTERESTING_SIZES)
    async def test_a_stream_in_odd_pieces(self, store: Store, size: int) -> None:
        data = pattern(size)

        async def pieces() -> AsyncIterator[bytes]:
            step = max(1, size // 7)
            for start in range(0, size, step):
                yield data[start : start + step]
                yield b""

        hash = await store.add_stream(pieces())
        assert hash == pybao.hash(data)
        assert await store.read(hash) == data

    async def test_a_stream_that_fails_adds_nothing(self, store: Store) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield LARGE * 20
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            await store.add_stream(pieces())
        assert [stat async for stat in store.list_blobs()] == []

    async def test_adding_again_changes_nothing(self, store: Store) -> None:
        for data in (b"small", LARGE):
            assert await store.add_bytes(data) == await store.add_bytes(data)
        assert len([stat async for stat in store.list_blobs()]) == 2

    async def test_add_verified(self, store: Store, tmp_path: Path) -> None:
        root, outboard = pybao.outboard(LARGE)
        path = tmp_path / "received"
        path.write_bytes(LARGE)
        small = [(Hash(pybao.hash(data)), data) for data in (b"", b"a", b"b")]
        with path.open("rb") as file:
            verified = VerifiedFile(Hash(root), len(LARGE), outboard, path, file.fileno())
            await store.add_verified(small, [verified])
        assert await store.read_small([hash for hash, _ in small]) == [b"", b"a", b"b"]
        assert await store.read(Hash(root)) == LARGE
        await store.add_verified([])

    async def test_add_verified_refuses_what_cannot_be(self, store: Store, tmp_path: Path) -> None:
        root, outboard = pybao.outboard(LARGE)
        path = tmp_path / "received"
        path.write_bytes(LARGE)
        with pytest.raises(ValueError, match="too large"):
            await store.add_verified([(Hash(root), LARGE)])
        with path.open("rb") as file:
            good = VerifiedFile(Hash(root), len(LARGE), outboard, path, file.fileno())
            short = VerifiedFile(Hash(root), len(LARGE), outboard[:-64], path, file.fileno())
            with pytest.raises(ValueError, match="outboard"):
                await store.add_verified([], [short])
            path.rename(tmp_path / "elsewhere")
            path.write_bytes(LARGE)
            with pytest.raises(FileChangedError):
                await store.add_verified([], [good])
        assert await store.stat(Hash(root)) is None

    async def test_a_small_file_is_checked_as_it_moves(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "received"
        path.write_bytes(b"other")
        with path.open("rb") as file:
            verified = VerifiedFile(ABSENT, 5, b"", path, file.fileno())
            with pytest.raises(VerificationError):
                await store.add_verified([], [verified])
        assert await store.stat(ABSENT) is None

    async def test_many_tasks_add_at_once(self, store: Store) -> None:
        blobs = [pattern(100, seed) + bytes([seed]) for seed in range(200)]
        hashes = await asyncio.gather(*(store.add_bytes(data) for data in blobs))
        assert await store.read_small(hashes) == blobs

    # Importing

    async def test_import_files(self, store: Store, tmp_path: Path) -> None:
        contents = [b"", b"small", b"g" * 16384, b"h" * 16385, b"l" * 300_000]
        paths = [tmp_path / f"file {i}" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        # In the order asked for, and one that is named twice is there twice.
        imported = await store.import_files([*reversed(paths), paths[0]])
        expected = [*reversed(contents), contents[0]]
        assert [file.name for file in imported] == [
            *(path.name for path in reversed(paths)),
            paths[0].name,
        ]
        assert [await store.read(file.hash) for file in imported] == expected
        assert [file.size for file in imported] == [len(content) for content in expected]
        assert await store.import_files([]) == []
        with pytest.raises(ImportFileError):
            await store.import_files([paths[0], tmp_path / "missing"])

    @pytest.mark.parametrize("mode", ImportMode)
    @pytest.mark.parametrize("size", INTERESTING_SIZES)
    async def test_import_file(
        self, store: Store, tmp_path: Path, size: int, mode: ImportMode
    ) -> None:
        data = pattern(size)
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        progress = ImportProgress()
        for _ in range(2):
            imported = await store.import_file(path, mode=mode, progress=progress)
            assert (imported.name, imported.size) == ("file.bin", size)
            assert imported.hash == pybao.hash(data)
            assert await store.read(imported.hash) == data
        assert (progress.files_done, progress.files_total, progress.walked) == (2, 2, True)
        assert progress.bytes_done == progress.bytes_total == 2 * size
        assert path.read_bytes() == data

    async def test_a_copy_needs_its_file_no_more(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(LARGE)
        imported = await store.import_file(path, mode=ImportMode.COPY)
        path.write_bytes(b"changed")
        assert await store.read(imported.hash) == LARGE
        path.unlink()
        assert await store.verify(imported.hash) == ChunkRanges.all()

    async def test_import_follows_a_link_given(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(LARGE)
        (tmp_path / "link").symlink_to("target")
        assert (await store.import_file(tmp_path / "link")).name == "target"
        collection = await store.import_collection([tmp_path / "link"])
        assert [file.name for file in collection.files] == ["target"]

    async def test_what_cannot_be_imported(self, store: Store, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
            with pytest.raises(ImportFileError):
                await store.import_file(path)
        for path in (tmp_path / "absent", tmp_path / "pipe"):
            with pytest.raises(ImportFileError):
                await store.import_collection([path])
        assert [stat async for stat in store.list_blobs()] == []

    async def test_import_collection(self, store: Store, tmp_path: Path) -> None:
        root = tmp_path / "tree"
        contents = {
            "tree/b": b"b",
            "tree/a/large": LARGE,
            "tree/a/.hidden": b"",
            "tree/a-b": b"sorts before a/ by its bytes",
            "tree/\N{LATIN SMALL LETTER E WITH ACUTE}": b"b",
            "tree/Z": pattern(16 * 1024),
        }
        for name, data in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        (root / "empty").mkdir()
        (root / "link").symlink_to("b")
        (root / "folder-link").symlink_to("a")
        (tmp_path / "single").write_bytes(b"one")
        contents["single"] = b"one"

        progress = ImportProgress()
        collection = await store.import_collection([root, tmp_path / "single"], progress=progress)
        assert [file.name for file in collection.files] == sorted(contents, key=str.encode)
        for file in collection.files:
            assert await store.read(file.hash) == contents[file.name]
        assert collection.size == sum(map(len, contents.values()))
        assert len(collection.skipped) == 2
        assert all("symlink" in reason for reason in collection.skipped)
        assert progress.walked
        assert progress.files_done == progress.files_total == len(contents)
        assert progress.bytes_done == progress.bytes_total == collection.size

        seq = HashSeq.from_bytes(await store.read(collection.hash))
        decoded = Collection.decode(await store.read(seq[0]), seq)
        assert decoded.entries == tuple((file.name, file.hash) for file in collection.files)
        again = await store.import_collection([tmp_path / "single", root])
        assert again.hash == collection.hash

    async def test_an_empty_folder_is_an_empty_collection(
        self, store: Store, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        collection = await store.import_collection([tmp_path / "empty"])
        assert collection.files == ()
        assert len(await store.read(collection.hash)) == 32

    async def test_names_that_no_collection_takes(self, store: Store, tmp_path: Path) -> None:
        for number, bad in enumerate((b"back\\slash", b"not \xff utf-8")):
            folder = tmp_path / str(number)
            folder.mkdir()
            if make_file(folder, bad):
                with pytest.raises(ImportFileError):
                    await store.import_collection([folder])

    async def test_two_paths_of_one_name(self, store: Store, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "same").write_bytes(b"x")
        with pytest.raises(ImportFileError, match="same"):
            await store.import_collection([tmp_path / "a/same", tmp_path / "b/same"])
