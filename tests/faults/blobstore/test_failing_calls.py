"""Each file verb of each operation fails once: nothing false is claimed, nothing is left behind.

The operation either reports the failure or had no need of the call; done again, it succeeds.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pybao
from blobstore import ChunkRanges, Hash, HashAndFormat, ImportMode, LmdbStore, VerifiedFile
from blobstore.errors import BlobError, StoreFullError
from blobstore.testing import FaultyFiles
from blobstore.testing.crash import check_claims
from blobstore.testing.data import fill, names_in, pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Operation = Callable[[LmdbStore, Path, int], Awaitable[Hash | None]]

HUGE = 4_300_000
"""A size whose outboard is a file."""


async def add_bytes(store: LmdbStore, folder: Path, number: int) -> Hash:
    return await store.add_bytes(pattern(HUGE, number))


async def add_stream(store: LmdbStore, folder: Path, number: int) -> Hash:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield pattern(HUGE // 5, number)

    return await store.add_stream(pieces())


async def import_reference(store: LmdbStore, folder: Path, number: int) -> Hash:
    path = folder / f"source {number}"
    path.write_bytes(pattern(HUGE, number))
    return (await store.import_file(path)).hash


async def import_copy(store: LmdbStore, folder: Path, number: int) -> Hash:
    (folder / "source").write_bytes(pattern(HUGE, number))
    return (await store.import_file(folder / "source", mode=ImportMode.COPY)).hash


async def import_collection(store: LmdbStore, folder: Path, number: int) -> Hash:
    tree = folder / f"tree {number}"
    tree.mkdir(exist_ok=True)
    for name, size in (("a", 10), ("b", 50_000), ("c", HUGE)):
        (tree / name).write_bytes(pattern(size, number))
    return (await store.import_collection([tree])).hash


async def import_tree(store: LmdbStore, folder: Path, number: int) -> Hash:
    """Enough files to be read together, which are read alone where that fails."""
    tree = folder / f"larger tree {number}"
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/c/1"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pattern(40_000 if name.endswith("3") else 100, number))
    return (await store.import_collection([tree])).hash


async def add_verified(store: LmdbStore, folder: Path, number: int) -> Hash:
    path = folder / f"received {number}"
    data = pattern(HUGE, number)
    path.write_bytes(data)
    root, outboard = pybao.outboard(data)
    with path.open("rb") as file:
        verified = VerifiedFile(Hash(root), HUGE, outboard, path, file.fileno())
        await store.add_verified([(Hash(pybao.hash(b"s")), b"s")], [verified])
    return Hash(root)


async def fill_owned(store: LmdbStore, folder: Path, number: int) -> Hash:
    data = pattern(HUGE, number)
    hash = Hash(pybao.hash(data))
    async with await store.open_partial(hash) as partial:
        await fill(partial, data, ChunkRanges.of(0, 1000))
    async with await store.open_partial(hash) as partial:
        await fill(partial, data, ChunkRanges.all() - partial.bitfield)
        await partial.complete()
    return hash


async def fill_published(store: LmdbStore, folder: Path, number: int) -> Hash:
    data = pattern(100_000, number)
    hash = Hash(pybao.hash(data))
    hidden, final = folder / f".part {number}", folder / f"final {number}"
    fd = os.open(hidden, os.O_RDWR | os.O_CREAT)

    def publish() -> Path:
        hidden.rename(final)
        return final

    try:
        async with await store.open_partial(hash, data_fd=fd, path=hidden) as partial:
            await fill(partial, data)
            await partial.complete(publish)
    finally:
        os.close(fd)
    return hash


async def discard(store: LmdbStore, folder: Path, number: int) -> None:
    async with await store.open_partial(Hash(pybao.hash(pattern(50_000, number)))) as partial:
        await fill(partial, pattern(50_000, number), ChunkRanges.of(0, 16))
        await partial.discard()


async def export(store: LmdbStore, folder: Path, number: int) -> None:
    target = folder / "exported"
    before = target.read_bytes() if target.exists() else None
    hash = await store.add_bytes(pattern(50_000, number))
    try:
        await store.export(hash, target, overwrite=True)
    finally:
        # Whole or not at all, and nothing beside it.
        assert (target.read_bytes() if target.exists() else None) in (
            before,
            pattern(50_000, number),
        )
        assert [name for name in names_in(folder) if name.startswith(".blobstore")] == []


async def remove(store: LmdbStore, folder: Path, number: int) -> None:
    hash = await store.add_bytes(pattern(HUGE, number))
    await store.delete([hash])


async def collect(store: LmdbStore, folder: Path, number: int) -> None:
    async with await store.temp_tag() as temp:
        await store.add_many([b"x", pattern(50_000, number)], temp=temp)
    await store.gc()


async def verify(store: LmdbStore, folder: Path, number: int) -> None:
    hash = await store.add_bytes(pattern(HUGE, number))
    good = await store.verify(hash)
    assert good.is_all


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(names_in(Path("/dev/fd")))


OPERATIONS: list[Operation] = [
    add_bytes,
    add_stream,
    import_reference,
    import_copy,
    import_collection,
    import_tree,
    add_verified,
    fill_owned,
    fill_published,
    discard,
    export,
    remove,
    collect,
    verify,
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_every_call_fails_once(operation: Operation, tmp_path: Path) -> None:
    files = FaultyFiles()
    async with LmdbStore.open(tmp_path / "store", files=files) as store:
        files.arm(0)
        await operation(store, tmp_path, 0)
        calls = files.calls
        assert calls > 0
        failures = 0
        descriptors = open_descriptors()
        for number in range(1, calls + 1):
            code = errno.EIO if number % 2 else errno.ENOSPC
            files.code = code
            files.arm(number)
            with contextlib.suppress(OSError, BlobError):
                await operation(store, tmp_path, number)
                failures -= 1
            # Otherwise it failed by itself, or the calls differ from time to time.
            assert files.has_failed
            failures += 1
            files.arm(0)
            hash = await operation(store, tmp_path, number)
            if hash is not None:
                await store.read(hash)
        # A file that cannot be read together with others is read once more, alone.
        assert failures > (calls // 3 if operation is import_tree else calls // 2)
        assert open_descriptors() == descriptors
        await check_claims(store)


async def test_no_room_is_said_so(tmp_path: Path) -> None:
    files = FaultyFiles(code=errno.ENOSPC)
    async with LmdbStore.open(tmp_path / "store", files=files) as store:
        files.arm(2)
        with pytest.raises(StoreFullError) as caught:
            await store.add_bytes(pattern(HUGE))
        assert not caught.value.is_permanent
        assert [stat async for stat in store.list_blobs()] == []


@pytest.mark.timeout(120)
async def test_every_call_of_opening_fails_once(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with LmdbStore.open(tmp_path / "whole", files=files):
        calls = files.calls
    for number in range(1, calls + 1):
        path = tmp_path / str(number)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            async with LmdbStore.open(path, files=FaultyFiles(number)):
                raise AssertionError("opened")
        async with LmdbStore.open(path) as store:
            hash = await store.add_bytes(b"x")
            await store.set_tag("x", HashAndFormat(hash))
        async with LmdbStore.open(path) as store:
            assert await store.read(hash) == b"x"
