"""Fetching into a folder, from a provider in this process over the memory transport."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from blobstore import (
    BlobFormat,
    ChunkRanges,
    Collection,
    Hash,
    HashAndFormat,
    LmdbStore,
    MemStore,
    Store,
)
from blobsync.address import EndpointId
from blobsync.errors import (
    DiskFullError,
    HostileCollectionError,
    NotFoundError,
    PeerDataError,
    RemoteProtocolError,
    TargetExistsError,
)
from blobsync.protocols.blobs import ALPN, Provider, SharedBlobs
from blobsync.protocols.blobs.python_pumps import PythonPumps
from blobsync.sync.events import FetchDone, FetchEvent, FetchProgress, FetchStarted
from blobsync.sync.fetch import FolderFetch, Overwrite
from blobsync.sync.folder_sink import COPIES_MAX
from blobsync.sync.root import Root
from blobsync.transports.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from blobsync.transports import Connection

# Public keys of the secret keys [1; 32] and [2; 32].
IDS = (
    EndpointId.from_text("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"),
    EndpointId.from_text("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"),
)
LARGE = 3_000_000
"""Bytes of a file over the size that travels whole."""


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


TREE = {
    "top/empty": b"",
    "top/a/small": b"small",
    "top/a/group": content(1, 16 * 1024),
    "top/a/medium": content(2, 16 * 1024 + 1),
    "top/b/large": content(3, LARGE),
    "top/b/again": b"small",
    "top/b/large again": content(3, LARGE),
    "top/ünïcode ☃": b"snow",
}
TREE_SIZE = sum(len(data) for data in TREE.values())
UNIQUE_SIZE = TREE_SIZE - LARGE - len(b"small")


@dataclass
class World:
    """A provider, the getter's store and its destination."""

    served: Store
    shared: SharedBlobs
    provider: Provider
    store: Store
    destination: Path
    dialled: int = 0

    async def share(self, tree: dict[str, bytes]) -> HashAndFormat:
        """Make a collection at the provider and grant it."""
        hashes = await self.served.add_many(list(tree.values()))
        return await self.share_collection(Collection(tuple(zip(tree, hashes, strict=True))))

    async def share_collection(self, collection: Collection) -> HashAndFormat:
        meta = await self.served.add_bytes(collection.encode_meta())
        root = await self.served.add_bytes(bytes(collection.hash_seq(meta)))
        target = HashAndFormat(root, BlobFormat.HASH_SEQ)
        self.shared.grant(target)
        return target

    @asynccontextmanager
    async def dialling(self) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
        """Connects to the provider when asked."""
        connections: list[Connection] = []
        serving: list[asyncio.Future[None]] = []

        async def connect() -> Connection:
            self.dialled += 1
            ours, theirs = MemoryConnection.pair(*IDS, ALPN)
            connections.append(ours)
            serving.append(asyncio.ensure_future(self.provider.serve(theirs)))
            return ours

        try:
            yield connect
        finally:
            for connection in connections:
                await connection.close()
            for each in serving:
                await each

    async def fetch(
        self, target: HashAndFormat, overwrite: Overwrite = Overwrite.NEVER
    ) -> list[FetchEvent]:
        async with self.dialling() as connect:
            with Root.open(self.destination) as root:
                fetch = FolderFetch(self.store, PythonPumps(), connect, target, root, overwrite)
                return [event async for event in fetch.run()]

    async def fetch_done(
        self, target: HashAndFormat, overwrite: Overwrite = Overwrite.NEVER
    ) -> FetchDone:
        done = (await self.fetch(target, overwrite))[-1]
        assert isinstance(done, FetchDone)
        return done

    def tree(self) -> dict[str, bytes]:
        """What is at the destination."""
        return {
            path.relative_to(self.destination).as_posix(): path.read_bytes()
            for path in self.destination.rglob("*")
            if path.is_file()
        }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with (
        asyncio.timeout(60),
        MemStore() as served,
        LmdbStore.open(tmp_path / "store") as store,
    ):
        shared = SharedBlobs()
        provider = Provider(served, shared, PythonPumps())
        yield World(served, shared, provider, store, tmp_path / "destination")


async def test_a_collection_arrives(world: World) -> None:
    target = await world.share(TREE)
    events = await world.fetch(target)
    assert world.tree() == TREE
    done = events[-1]
    assert isinstance(done, FetchDone)
    assert (done.files, done.bytes) == (len(TREE), TREE_SIZE)
    assert done.bytes_fetched == UNIQUE_SIZE, "equal files cross the wire once"
    started = next(event for event in events if isinstance(event, FetchStarted))
    assert started.bytes_total == TREE_SIZE


async def test_what_arrived_is_in_the_store(world: World) -> None:
    await world.fetch(await world.share(TREE))
    for data in TREE.values():
        hash = await world.served.add_bytes(data)
        assert await world.store.read(hash) == data


async def test_progress_ends_with_everything(world: World) -> None:
    events = await world.fetch(await world.share(TREE))
    last = [event for event in events if isinstance(event, FetchProgress)][-1]
    assert (last.files_done, last.files_total) == (len(TREE), len(TREE))
    assert last.bytes_done == last.bytes_total == TREE_SIZE


@pytest.mark.parametrize("size", [0, 5, 20_000])
async def test_a_blob_with_very_many_places_crosses_the_wire_once(world: World, size: int) -> None:
    tree = {f"top/{i % 7}/{i}": content(4, size) for i in range(COPIES_MAX + 30)}
    done = await world.fetch_done(await world.share(tree))
    assert world.tree() == tree
    assert (done.bytes_fetched, done.files, done.bytes) == (size, len(tree), size * len(tree))


async def test_a_second_fetch_does_nothing(world: World) -> None:
    target = await world.share(TREE)
    await world.fetch(target)
    before = {path: path.stat().st_mtime_ns for path in world.destination.rglob("*")}
    dialled = world.dialled
    done = await world.fetch_done(target)
    assert (done.bytes_fetched, done.files, done.bytes) == (0, len(TREE), TREE_SIZE)
    assert world.dialled == dialled, "nothing to ask, nobody to dial"
    assert {path: path.stat().st_mtime_ns for path in world.destination.rglob("*")} == before


async def test_what_the_store_holds_is_not_fetched(world: World) -> None:
    target = await world.share(TREE)
    await world.store.add_bytes(content(3, LARGE))
    done = await world.fetch_done(target)
    assert world.tree() == TREE
    assert done.bytes_fetched == UNIQUE_SIZE - LARGE


async def test_equal_files_at_the_destination_are_not_fetched(world: World) -> None:
    target = await world.share(TREE)
    for name in ("top/b/large", "top/a/small"):
        path = world.destination / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TREE[name])
    done = await world.fetch_done(target)
    assert world.tree() == TREE
    assert done.bytes_fetched == UNIQUE_SIZE - LARGE - len(b"small")


async def test_a_deleted_file_comes_back(world: World) -> None:
    target = await world.share(TREE)
    await world.fetch(target)
    (world.destination / "top/a/medium").unlink()
    (world.destination / "top/a/small").unlink()
    done = await world.fetch_done(target)
    assert world.tree() == TREE
    assert done.bytes_fetched == len(TREE["top/a/medium"]), "small ones come from the store"


@pytest.mark.parametrize("name", ["top/a/small", "top/b/large"])
async def test_never_overwrite_changes_nothing(world: World, name: str) -> None:
    target = await world.share(TREE)
    path = world.destination / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine" * 10_000)
    with pytest.raises(TargetExistsError, match=name):
        await world.fetch(target)
    assert world.tree() == {name: b"mine" * 10_000}


@pytest.mark.parametrize("overwrite", [Overwrite.ALWAYS, Overwrite.IF_CHANGED])
async def test_overwrite_replaces(world: World, overwrite: Overwrite) -> None:
    target = await world.share(TREE)
    await world.fetch(target)
    kept = world.destination / "top/a/group"
    inode = kept.stat().st_ino
    (world.destination / "top/a/small").write_bytes(b"other")
    (world.destination / "top/b/large").write_bytes(b"other")
    await world.fetch(target, overwrite)
    assert world.tree() == TREE
    assert (kept.stat().st_ino == inode) == (overwrite is Overwrite.IF_CHANGED)


@pytest.mark.parametrize("overwrite", list(Overwrite))
async def test_a_folder_in_the_way_is_never_replaced(world: World, overwrite: Overwrite) -> None:
    target = await world.share(TREE)
    (world.destination / "top/a/small").mkdir(parents=True)
    with pytest.raises(TargetExistsError):
        await world.fetch(target, overwrite)
    assert world.tree() == {}


async def test_a_symlink_in_the_way_is_replaced_not_followed(world: World, tmp_path: Path) -> None:
    target = await world.share(TREE)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    link = world.destination / "top/a/small"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(TargetExistsError):
        await world.fetch(target)
    await world.fetch(target, Overwrite.IF_CHANGED)
    assert world.tree() == TREE
    assert outside.read_bytes() == b"precious"
    assert not link.is_symlink()


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, LARGE])
async def test_a_raw_blob_is_named_by_its_hash(world: World, size: int) -> None:
    data = content(9, size)
    hash = await world.served.add_bytes(data)
    world.shared.grant(HashAndFormat(hash))
    await world.fetch(HashAndFormat(hash))
    assert world.tree() == {hash.hex(): data}


async def test_an_interrupted_fetch_goes_on(world: World) -> None:
    """Everything but the end of the large file is there at first."""
    data = content(5, LARGE)
    hash = await world.served.add_bytes(data)
    target = HashAndFormat(hash)
    world.shared.grant(target)
    real = world.served.open_reader

    async def open_half(hash: Hash) -> object:
        reader = await real(hash)
        half = data[: LARGE // 2] + bytes(LARGE - LARGE // 2)
        reader.data, reader.available = half, ChunkRanges.of(0, 1464)
        return reader

    # The size is asked for first; the provider loses the rest of the file only after that.
    calls = 0

    async def open_reader(hash: Hash) -> object:
        nonlocal calls
        calls += 1
        return await (open_half(hash) if calls == 2 else real(hash))

    world.served.open_reader = open_reader  # type: ignore[method-assign,assignment]
    with pytest.raises(NotFoundError):
        await world.fetch(target)
    hidden = list(world.destination.iterdir())
    assert [path.name[0] for path in hidden] == ["."]
    done = await world.fetch_done(target)
    assert world.tree() == {hash.hex(): data}
    assert done.bytes_fetched <= LARGE // 2 + 16 * 1024, "what was proven is not fetched again"


async def test_leaving_early_stops_and_keeps(world: World) -> None:
    target = await world.share(TREE)
    async with world.dialling() as connect:
        with Root.open(world.destination) as root:
            fetch = FolderFetch(world.store, PythonPumps(), connect, target, root, Overwrite.NEVER)
            run = fetch.run()
            await anext(run)
            await run.aclose()
    await world.fetch(target)
    assert world.tree() == TREE


@pytest.mark.parametrize(
    "name", ["../escape", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b", "C:/x", "aux", "a//b"]
)
async def test_hostile_names_are_refused_before_anything_is_written(
    world: World, name: str
) -> None:
    target = await world.share({"good": b"good", name: b"bad"})
    with pytest.raises(HostileCollectionError):
        await world.fetch(target)
    assert world.tree() == {}


async def test_clashing_names_are_refused(world: World) -> None:
    for names in (["a", "a"], ["a", "a/b"]):
        hash = await world.served.add_bytes(b"data")
        target = await world.share_collection(Collection(tuple((name, hash) for name in names)))
        with pytest.raises(HostileCollectionError):
            await world.fetch(target)
    assert world.tree() == {}


async def test_a_hash_seq_without_names_is_no_collection(world: World) -> None:
    for data in (b"x" * 32, (await world.served.add_bytes(b"child")) * 2, b""):
        if data:
            await world.served.add_bytes(data)
        root = await world.served.add_bytes(data)
        target = HashAndFormat(root, BlobFormat.HASH_SEQ)
        world.shared.grant(target)
        with pytest.raises((RemoteProtocolError, NotFoundError)):
            await world.fetch(target)
    assert world.tree() == {}


async def test_a_blob_that_is_no_hash_seq_is_no_collection(world: World) -> None:
    root = await world.served.add_bytes(b"x" * 33)
    world.shared.grant(HashAndFormat(root))
    with pytest.raises(RemoteProtocolError, match="not a collection"):
        await world.fetch(HashAndFormat(root, BlobFormat.HASH_SEQ))


async def test_what_is_not_shared_is_not_found(world: World) -> None:
    target = await world.share(TREE)
    world.shared.revoke(target.hash)
    with pytest.raises(NotFoundError):
        await world.fetch(target)
    assert world.tree() == {}


async def test_a_missing_child_is_not_found_and_the_rest_stays(world: World) -> None:
    there = await world.served.add_bytes(b"there")
    collection = Collection((("a", there), ("b", Hash(bytes(32)))))
    target = await world.share_collection(collection)
    with pytest.raises(NotFoundError):
        await world.fetch(target)


async def test_no_room_is_known_before_anything_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await world.share(TREE)
    monkeypatch.setattr(Root, "free_bytes", lambda self: UNIQUE_SIZE // 2)
    with pytest.raises(DiskFullError):
        await world.fetch(target)
    assert world.tree() == {}


async def test_damaged_bytes_never_reach_a_file(world: World) -> None:
    data = content(6, LARGE)
    hash = await world.served.add_bytes(data)
    target = HashAndFormat(hash)
    world.shared.grant(target)
    async with world.dialling() as connect:
        with Root.open(world.destination) as root:

            async def connect_through_noise() -> Connection:
                connection = await connect()
                real = connection.open_bi

                async def open_bi() -> object:
                    stream = await real()
                    read = stream.recv.read
                    passed = 0

                    async def noisy_read(max_bytes: int) -> bytes:
                        nonlocal passed
                        piece = bytearray(await read(max_bytes))
                        if passed <= 1_000_000 < passed + len(piece):
                            piece[1_000_000 - passed] ^= 1
                        passed += len(piece)
                        return bytes(piece)

                    stream.recv.read = noisy_read  # type: ignore[method-assign]
                    return stream

                connection.open_bi = open_bi  # type: ignore[method-assign,assignment]
                return connection

            fetch = FolderFetch(
                world.store,
                PythonPumps(),
                connect_through_noise,
                target,
                root,
                Overwrite.NEVER,
            )
            with pytest.raises(PeerDataError, match=hash.hex()):
                [event async for event in fetch.run()]
    (partial,) = world.destination.iterdir()
    written = partial.read_bytes()
    assert written == data[: len(written)]
    assert len(written) < 1_000_000
    await world.fetch(target)
    assert world.tree() == {hash.hex(): data}
