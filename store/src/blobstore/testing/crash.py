"""Processes that work on a store until they are killed, and what must be true of it after.

The functions that children run are here, because a child process imports them by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from typing import TYPE_CHECKING, Any

import pybao
from blobstore.api import ImportMode, VerifiedFile
from blobstore.codec.hash import BlobFormat, Hash, HashAndFormat
from blobstore.codec.hashseq import HashSeq
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import chunk_count
from blobstore.database import FULL_CODES
from blobstore.errors import BlobNotFoundError, StoreFullError
from blobstore.folder import DATA, OUTBOARD, parse_owned_name
from blobstore.lmdb_store import LmdbStore
from blobstore.testing.data import fill, names_in, pattern
from blobstore.testing.faults import CrashFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    from blobstore.api import Store

KEPT = pattern(700_000, 7)
"""What a process that was killed had been filling."""


async def scenario(store: Store, folder: Path, connection: Connection) -> None:
    """A bit of everything; sends the hash of each blob that is called complete."""

    def done(hash: Hash) -> None:
        connection.send(("complete", bytes(hash)))

    async def tag(name: str, hash: Hash) -> None:
        await store.set_tag(name, HashAndFormat(hash))
        done(hash)

    await tag("small", await store.add_bytes(b"small"))
    await tag("large", await store.add_bytes(pattern(100_000, 1)))
    await tag("huge", await store.add_bytes(pattern(5_000_000, 2)))
    source = folder / "source"
    source.write_bytes(pattern(5_000_000, 3))
    await tag("copied", (await store.import_file(source, mode=ImportMode.COPY)).hash)
    await tag("referenced", (await store.import_file(source)).hash)
    hash = Hash(pybao.hash(KEPT))
    await store.set_tag("partial", HashAndFormat(hash))
    async with await store.open_partial(hash) as partial:
        for start in (0, 64, 256):
            await fill(partial, KEPT, ChunkRanges.of(start, start + 64))
            connection.send(("proven", (start, start + 64)))
    data = pattern(5_000_000, 4)
    hash = Hash(pybao.hash(data))
    await store.set_tag("published", HashAndFormat(hash))
    hidden, final = folder / ".part", folder / "final"
    fd = os.open(hidden, os.O_RDWR | os.O_CREAT)

    def publish() -> Path:
        hidden.rename(final)
        return final

    async with await store.open_partial(hash, data_fd=fd, path=hidden) as partial:
        await fill(partial, data)
        await partial.complete(publish)
    os.close(fd)
    done(hash)
    await store.export(hash, folder / "exported")
    root, outboard = pybao.outboard(pattern(60_000, 5))
    received = folder / "received"
    received.write_bytes(pattern(60_000, 5))
    with received.open("rb") as file:
        verified = VerifiedFile(Hash(root), 60_000, outboard, received, file.fileno())
        await store.add_verified([], [verified])
    await tag("received", Hash(root))
    garbage = await store.temp_tag()
    await store.add_bytes(pattern(200_000, 6), temp=garbage)
    await garbage.close()
    await store.gc()


def run_scenario(folder: Path, connection: Connection, crash_at: int, after: bool) -> None:
    """In a child process: run the scenario, killed at a call of a file verb."""

    async def main() -> int:
        files = CrashFiles(crash_at, after=after)
        async with LmdbStore.open(folder / "store", files=files) as store:
            await scenario(store, folder, connection)
        return files.calls

    connection.send(("calls", asyncio.run(main())))


def run_adder(folder: Path, connection: Connection, rounds: int) -> None:
    """In a child process: add, protect and read, while others collect garbage."""

    async def main() -> None:
        async with LmdbStore.open(folder / "store") as store:
            for number in range(rounds):
                await _add_and_read(store, number)
                connection.send(("round", number))

    try:
        asyncio.run(main())
    except BaseException as error:
        connection.send(("failed", repr(error)))
        raise
    connection.send(("ended", rounds))


async def _add_and_read(store: Store, number: int) -> None:
    """The same few blobs again and again, so that adds meet the removal of the very same."""
    variant = number % 3
    blobs = [b"%d" % variant, pattern(30_000, variant), pattern(4_300_000, variant)]
    async with await store.temp_tag() as temp:
        hashes = await store.add_many(blobs, temp=temp)
        hash = Hash(pybao.hash(blobs[1][:29_000]))
        async with await store.open_partial(hash) as partial:
            await fill(partial, blobs[1][:29_000], ChunkRanges.of(0, 16))
            # Nobody removes it under us, and nothing of it is lost.
            assert partial.bitfield == ChunkRanges.of(0, 16) or variant
        seq = await store.add_bytes(bytes(HashSeq(hashes)), temp=temp)
        await store.set_tag("seq", HashAndFormat(seq, BlobFormat.HASH_SEQ))
    for hash, data in zip(hashes, blobs, strict=True):
        assert await store.read(hash) == data
    await store.delete_tag("seq")


def run_forever(folder: Path, connection: Connection) -> None:
    """In a child process: grow a partial blob and add others, until killed from outside."""

    async def main() -> None:
        async with LmdbStore.open(folder / "store") as store:
            hash = Hash(pybao.hash(KEPT))
            await store.set_tag("partial", HashAndFormat(hash))
            async with await store.open_partial(hash) as partial:
                for number in range(chunk_count(len(KEPT)) // 16):
                    span = (number * 16, number * 16 + 16)
                    await fill(partial, KEPT, ChunkRanges.of(*span))
                    connection.send(("proven", span))
                    added = await store.add_bytes(pattern(20_000, number % 256) + b"%d" % number)
                    await store.set_tag(f"{number}", HashAndFormat(added))
                    connection.send(("complete", bytes(added)))

    asyncio.run(main())


async def check_after_crash(folder: Path, messages: list[tuple[str, Any]]) -> None:
    """Reopen the store: what was called complete is, and nothing is claimed that is not there."""
    proven = ChunkRanges.empty()
    async with LmdbStore.open(folder / "store") as store:
        await store.gc()
        for kind, value in messages:
            if kind == "complete":
                await store.read(Hash(value))
            elif kind == "proven":
                proven = proven | ChunkRanges(value)
        stat = await store.stat(Hash(pybao.hash(KEPT)))
        if proven:
            assert stat is not None
            assert proven.issubset(stat.bitfield)
        await check_claims(store)


async def check_claims(store: LmdbStore) -> None:
    """Everything that the store says of itself is true, and no file is without a record."""
    claims = [stat async for stat in store.list_blobs()]
    named: set[Hash] = set()
    for stat in claims:
        named.add(stat.hash)
        good = await store.verify(stat.hash)
        assert good == stat.bitfield, f"{stat} is in truth {good}"
        with contextlib.suppress(BlobNotFoundError):
            (await store.open_reader(stat.hash)).close()
    await store.gc()
    for folder in (DATA, OUTBOARD):
        for name in names_in(store.path / folder):
            parsed = parse_owned_name(name)
            assert parsed is not None
            assert parsed[0] in named


def run_until_full(folder: Path, connection: Connection, size_max: int) -> None:
    """In a child process: add until no file may grow any more, then see what is claimed.

    With a `size_max` of 0 the file system of `folder` itself is what gets full.
    """

    async def main() -> None:
        if size_max:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_max, resource.RLIM_INFINITY))
        async with LmdbStore.open(folder / "store") as store:
            for make in (_add_small, _add_large, _fill_one):
                added = [hash async for hash in _add_until_full(store, make)]
                for hash in added:
                    await store.read(hash)
                connection.send((make.__name__, len(added)))
            if size_max:
                resource.setrlimit(
                    resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                )
                for make in (_add_small, _add_large, _fill_one):
                    await store.read(await make(store, 20))
            await check_claims(store)
        connection.send(("ended", 0))

    asyncio.run(main())


async def _add_small(store: Store, number: int) -> Hash:
    return await store.add_bytes(pattern(15_000) + number.to_bytes(4, "big"))


async def _add_large(store: Store, number: int) -> Hash:
    # Larger each time: a limit on the size of one file is met as well as a full disk.
    return await store.add_bytes(pattern((number + 1) * 300_000, 1))


async def _fill_one(store: Store, number: int) -> Hash:
    data = pattern((number + 1) * 300_000, 2)
    hash = Hash(pybao.hash(data))
    async with await store.open_partial(hash) as partial:
        await fill(partial, data)
        await partial.complete()
    return hash


async def _add_until_full(
    store: Store, make: Callable[[Store, int], Awaitable[Hash]]
) -> AsyncIterator[Hash]:
    for number in range(10_000):
        try:
            yield await make(store, number)
        except StoreFullError:
            return
        except OSError as error:
            # The getter's own write to the partial file, which is not the store's to translate.
            if error.errno not in FULL_CODES:
                raise
            return
    raise AssertionError("it never got full")
