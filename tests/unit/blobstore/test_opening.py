"""Which folders are opened, and what is left of those that are refused: everything."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from blobstore import HashAndFormat, LmdbStore
from blobstore.errors import (
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoreFormatError,
)
from blobstore.folder import CREATING, DATABASE, LEASES
from blobstore.schema import FORMAT_VERSION, VERSION_KEY, Table, encode_number
from blobstore.testing.data import ABSENT, names_in

if TYPE_CHECKING:
    from pathlib import Path


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


async def refused(path: Path, error: type[Exception]) -> None:
    with pytest.raises(error):
        async with LmdbStore.open(path):
            raise AssertionError("opened")


async def test_it_is_made_with_its_parents_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    async with LmdbStore.open(path) as store:
        await store.set_tag("x", HashAndFormat(ABSENT))
        assert store.path == path
    async with LmdbStore.open(str(path)) as store:
        assert await store.get_tag("x") == HashAndFormat(ABSENT)
    assert names_in(path / LEASES) == []


async def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    (tmp_path / "data").mkdir()
    before = listing(tmp_path)
    await refused(tmp_path, StoreFormatError)
    await refused(tmp_path / "letter.txt", StoreFormatError)
    assert listing(tmp_path) == before


async def test_an_unfinished_store_is_finished(tmp_path: Path) -> None:
    """A process was killed while it made the store: nothing was in it yet."""
    for name in ("lock", CREATING, f"{CREATING}-lock"):
        (tmp_path / name).write_bytes(b"half")
    async with LmdbStore.open(tmp_path) as store:
        await store.add_bytes(b"x")
    assert CREATING not in names_in(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut"])
async def test_a_damaged_database_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    async with LmdbStore.open(tmp_path) as store:
        for number in range(50):
            await store.add_bytes(bytes([number]) * 10_000)
    path = tmp_path / DATABASE
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "garbage": bytes(len(whole)), "cut": whole[:100_000]}[damage])
    before = listing(tmp_path)
    with pytest.raises(StoreDamagedError) as caught:
        async with LmdbStore.open(tmp_path):
            raise AssertionError("opened")
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    async with LmdbStore.open(tmp_path) as store:
        newer = encode_number(FORMAT_VERSION + 1)
        await store.write(lambda txn: txn.put(Table.META, VERSION_KEY, newer))
    before = listing(tmp_path)
    await refused(tmp_path, StoreFormatError)
    assert (tmp_path / DATABASE).read_bytes() == before[DATABASE]


async def test_once_in_a_process(tmp_path: Path) -> None:
    async with LmdbStore.open(tmp_path) as store:
        await refused(tmp_path, StoreBusyError)
        await store.add_bytes(b"still works")


async def test_not_open_yet(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path)
    with pytest.raises(StoreClosedError):
        await store.add_bytes(b"x")
    await store.close()


async def test_opening_that_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    """Its writer thread once kept a program alive that was interrupted while it started."""
    opening = asyncio.ensure_future(LmdbStore.open(tmp_path / "store").__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    assert [each.name for each in threading.enumerate() if "writer" in each.name] == []
    async with LmdbStore.open(tmp_path / "store"):
        pass
