"""A cancelled task waits for its thread; what was not committed leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import pybao
from blobstore import ChunkRanges, LmdbStore
from blobstore.errors import StoreClosedError, StoreFullError
from blobstore.files import Files
from blobstore.folder import DATA, OUTBOARD
from blobstore.testing.crash import check_claims
from blobstore.testing.data import LARGE, LARGE_HASH, fill, names_in, pattern

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path


class StoppedFiles(Files):
    """Stops at the first sync of a file until released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def sync_data(self, fd: int) -> None:
        self.entered.set()
        assert self.released.wait(30)
        super().sync_data(fd)


async def wait(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancel_waits_for_the_thread(tmp_path: Path, times: int) -> None:
    files = StoppedFiles()
    async with LmdbStore.open(tmp_path, files=files) as store:
        task = asyncio.create_task(store.add_bytes(LARGE))
        await wait(files.entered)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not task.done()
        files.released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await check_claims(store)


async def test_work_that_waits_for_a_thread_never_begins(tmp_path: Path) -> None:
    files = StoppedFiles()
    async with LmdbStore.open(tmp_path, files=files) as store:
        descriptors = len(os.listdir("/dev/fd"))  # noqa: PTH208 - their number alone is wanted
        busy = [asyncio.create_task(store.add_bytes(LARGE + b"%d" % n)) for n in range(64)]
        await wait(files.entered)
        fd = os.open(tmp_path / "data" / "x", os.O_RDWR | os.O_CREAT)
        late = asyncio.create_task(
            store.open_partial(LARGE_HASH, data_fd=fd, path=tmp_path / "data" / "x")
        )
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        os.close(fd)
        files.released.set()
        await asyncio.gather(*busy)
        assert await store.stat(LARGE_HASH) is None
        assert len(os.listdir("/dev/fd")) == descriptors  # noqa: PTH208 - as above


async def test_an_import_is_ended_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing a file of many GB does not hold up who has pressed Ctrl-C."""
    entered = threading.Event()
    outboard_fd = pybao.outboard_fd

    def slow(fd: int, size: int, *, progress: pybao.Progress, **rest: Any) -> tuple[bytes, bytes]:
        entered.set()
        while True:
            outboard_fd(fd, size, progress=progress)

    monkeypatch.setattr(pybao, "outboard_fd", slow)
    (tmp_path / "file").write_bytes(pattern(5_000_000))
    async with LmdbStore.open(tmp_path / "store") as store:
        for start in (store.import_file, lambda path: store.import_collection([path])):
            entered.clear()
            task: asyncio.Task[object] = asyncio.ensure_future(_as_object(start(tmp_path / "file")))
            await wait(entered)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [stat async for stat in store.list_blobs()] == []
        assert names_in(store.path / DATA) == names_in(store.path / OUTBOARD) == []


async def _as_object(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def test_a_stream_cancelled_between_its_pieces(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield pattern(3_000_000)
        reached.set()
        await asyncio.Event().wait()

    async with LmdbStore.open(tmp_path / "store") as store:
        task = asyncio.create_task(store.add_stream(pieces()))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names_in(store.path / DATA) == []


async def test_closing_waits_for_what_runs(tmp_path: Path) -> None:
    files = StoppedFiles()
    store = LmdbStore.open(tmp_path, files=files)
    await store.__aenter__()
    partial = await store.open_partial(LARGE_HASH)
    await fill(partial, LARGE, ChunkRanges.of(0, 16))
    adding = asyncio.create_task(store.add_bytes(LARGE))
    await wait(files.entered)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreClosedError):
        await store.stat(LARGE_HASH)
    assert not closing.done()
    files.released.set()
    assert await adding == LARGE_HASH
    await closing
    async with LmdbStore.open(tmp_path) as again:
        assert await again.read(LARGE_HASH) == LARGE


async def test_closing_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of its leases stay behind, and count for nothing."""

    def full(*_: object) -> None:
        raise StoreFullError("on purpose")

    with monkeypatch.context() as patch:
        async with LmdbStore.open(tmp_path) as store:
            hash = await store.add_bytes(b"x")
            patch.setattr("blobstore.catalog.release", full)
    async with LmdbStore.open(tmp_path) as store:
        assert (await store.gc()).blobs == 1
        assert await store.stat(hash) is None
