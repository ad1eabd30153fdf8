"""Hashing again: what is bad is no longer claimed, what is good stays or is mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore import ChunkRanges, Hash, LmdbStore
from blobstore.codec.tree import chunk_count
from blobstore.errors import BlobNotFoundError, PartialBusyError, VerificationError
from blobstore.folder import DATA, OUTBOARD
from blobstore.schema import Table
from blobstore.testing.data import LARGE, LARGE_HASH, fill, names_in, pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HUGE = pattern(5_000_000)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    async with LmdbStore.open(tmp_path / "store") as store:
        yield store


def only_file(store: LmdbStore, kind: str) -> Path:
    (name,) = names_in(store.path / kind)
    return store.path / kind / name


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("data", [LARGE, HUGE], ids=["inline outboard", "outboard file"])
async def test_damaged_data_becomes_partial_and_is_filled_again(
    store: LmdbStore, data: bytes
) -> None:
    hash = await store.add_bytes(data)
    flip(only_file(store, DATA), 50_000)
    with pytest.raises(VerificationError):
        await store.read(hash)
    good = ChunkRanges((0, 48, 64, chunk_count(len(data))))
    assert await store.verify(hash) == good
    stat = await store.stat(hash)
    assert stat is not None
    assert (stat.is_complete, stat.size_proven, stat.bitfield) == (False, True, good)
    assert await store.read(hash, 0, 1000) == data[:1000]
    with pytest.raises(BlobNotFoundError):
        await store.read(hash)
    async with await store.open_partial(hash) as partial:
        assert partial.bitfield == good
        await fill(partial, data, ChunkRanges.of(48, 64))
        await partial.complete()
    assert await store.read(hash) == data
    assert len(names_in(store.path / DATA)) == 1
    await store.gc()
    assert await store.verify(hash) == ChunkRanges.all()


@pytest.mark.parametrize("data", [LARGE, HUGE], ids=["inline outboard", "outboard file"])
@pytest.mark.parametrize("is_own", [True, False], ids=["own", "referenced"])
async def test_a_damaged_outboard_is_mended(
    store: LmdbStore, tmp_path: Path, data: bytes, is_own: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    hash = Hash(pybao.hash(data))
    await (store.add_bytes(data) if is_own else store.import_file(path))
    if data is HUGE:
        flip(only_file(store, OUTBOARD), 0)
    else:
        await store.write(lambda txn: txn.put(Table.OUTBOARDS, hash, bytes(6 * 64)))
    with pytest.raises(VerificationError):
        await store.read(hash)
    assert await store.verify(hash) == ChunkRanges.all()
    assert await store.read(hash) == data
    assert len(names_in(store.path / OUTBOARD)) == (data is HUGE)


async def test_a_damaged_small_blob_is_forgotten(store: LmdbStore) -> None:
    hash = await store.add_bytes(b"small")
    await store.write(lambda txn: txn.put(Table.DATA, hash, b"smalL"))
    with pytest.raises(VerificationError):
        await store.read(hash)
    with pytest.raises(VerificationError):
        await store.export(hash, store.path.with_name("out"))
    assert await store.verify(hash) == ChunkRanges.empty()
    assert await store.stat(hash) is None
    await store.add_bytes(b"small")
    assert await store.read(hash) == b"small"


async def test_a_changed_file_is_forgotten_and_left_alone(store: LmdbStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    await store.import_file(path)
    flip(path, 50_000)
    changed = path.read_bytes()
    assert await store.verify(LARGE_HASH) == ChunkRanges.empty()
    assert await store.stat(LARGE_HASH) is None
    assert path.read_bytes() == changed


async def test_lost_files(store: LmdbStore) -> None:
    hash = await store.add_bytes(HUGE)
    only_file(store, DATA).unlink()
    assert await store.verify(hash) == ChunkRanges.empty()
    assert await store.stat(hash) is None
    assert names_in(store.path / OUTBOARD) == []


async def test_a_partial_blob(store: LmdbStore) -> None:
    async with await store.open_partial(LARGE_HASH) as partial:
        await fill(partial, LARGE, ChunkRanges.of(0, 64))
        with pytest.raises(PartialBusyError):
            await store.verify(LARGE_HASH)
    flip(only_file(store, DATA), 20_000)
    good = ChunkRanges((0, 16, 32, 64))
    assert await store.verify(LARGE_HASH) == good
    stat = await store.stat(LARGE_HASH)
    assert stat is not None
    assert stat.bitfield == good
