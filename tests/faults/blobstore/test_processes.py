"""Two processes use one store at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import pybao
from blobstore import Hash, HashAndFormat, LmdbStore
from blobstore.errors import PartialBusyError, ProtectedError
from blobstore.folder import LEASES
from blobstore.testing.crash import KEPT, check_claims, run_adder, run_forever
from blobstore.testing.data import names_in, pattern

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 60


@pytest.mark.timeout(180)
async def test_gc_here_while_another_adds(children: Any, tmp_path: Path) -> None:
    async with LmdbStore.open(tmp_path / "store", map_size=1 << 20) as store:
        child, connection = children.start(run_adder, tmp_path, ROUNDS)
        collections = removed = 0
        messages: list[tuple[str, Any]] = []
        while not messages or messages[-1][0] not in ("failed", "ended"):
            while connection.poll():
                messages.append(connection.recv())
                if messages[-1][0] in ("failed", "ended"):
                    break
            removed += (await store.gc()).blobs
            collections += 1
        children.finish(child, connection)
        assert messages[-1] == ("ended", ROUNDS)
        # Otherwise the two did not meet.
        assert collections > 3
        assert removed > 3
        await check_claims(store)


@pytest.mark.timeout(120)
async def test_both_write(children: Any, tmp_path: Path) -> None:
    async with LmdbStore.open(tmp_path / "store", map_size=1 << 20) as store:
        child, connection = children.start(run_adder, tmp_path, 10)
        mine = [pattern(1000 * number, number) for number in range(1, 60)]
        hashes = [await store.add_bytes(data) for data in mine]
        messages = children.finish(child, connection)
        assert messages[-1] == ("ended", 10)
        assert [await store.read(hash) for hash in hashes] == mine
        await check_claims(store)


@pytest.mark.timeout(120)
async def test_what_a_living_process_holds(children: Any, tmp_path: Path) -> None:
    """Its leases and partial blobs are kept until it dies, and no longer."""
    hash = Hash(pybao.hash(KEPT))
    async with LmdbStore.open(tmp_path / "store") as store:
        child, connection = children.start(run_forever, tmp_path)
        kind, first = connection.recv()
        while kind != "complete":
            kind, first = connection.recv()
        await store.delete_tag("0")
        await store.delete_tag("partial")
        assert (await store.gc()).blobs == 0
        with pytest.raises(ProtectedError):
            await store.delete([Hash(first)])
        with pytest.raises(ProtectedError):
            await store.delete([hash])
        with pytest.raises(PartialBusyError):
            await store.open_partial(hash)
        child.kill()
        children.finish(child, connection)
        await store.set_tag("partial", HashAndFormat(hash))
        report = await store.gc()
        assert report.blobs >= 1
        assert await store.stat(Hash(first)) is None
        assert names_in(store.path / LEASES) != []
        async with await store.open_partial(hash) as partial:
            assert partial.bitfield
    assert names_in(tmp_path / "store" / LEASES) == []
