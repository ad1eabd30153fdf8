"""Our getter, with either pumps, and a provider of the iroh-blobs crate."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blobstore import ChunkRanges, Hash
from blobsync.app import App, RemoteFile
from blobsync.errors import (
    BlobsyncError,
    ExitCode,
    NotFoundError,
    PeerFailedError,
    RateLimitedError,
    RefusedError,
)
from blobsync.sync.events import FetchDone
from blobsync.wire.ticket import BlobTicket
from tests.interop.conftest import OpenApp
from tests.interop.contents import (
    EDGE_SIZES,
    GROUP,
    MIB,
    ODD_NAMES,
    assert_same,
    edge_files,
    random_bytes,
    read_tree,
    write_random,
    write_tree,
)
from tests.interop.drivers import Peer

pytestmark = pytest.mark.usefixtures("pumps")

# What a reset may take with it: what the peer was allowed to send and we had not read.
IN_FLIGHT_MAX = 2 * MIB

# The parts of a blob that a partial provider holds, as [start, end) of chunks.
HELD = (16, 8192)


@pytest.fixture
async def app(open_app: OpenApp, scratch: Path) -> AsyncIterator[App]:
    """Our application with an empty home."""
    async with open_app(scratch / "home") as app:
        yield app


async def fetch(app: App, ticket: str, destination: Path) -> FetchDone:
    """Fetch to the end."""
    events = [event async for event in app.get(BlobTicket.from_text(ticket), destination)]
    assert isinstance(events[-1], FetchDone)
    return events[-1]


async def cat(app: App, ticket: str, start: int = 0, end: int | None = None) -> bytes:
    """The bytes `[start, end)` of a remote blob."""
    pieces = app.cat(BlobTicket.from_text(ticket), start=start, end=end)
    return b"".join([piece async for piece in pieces])


async def proven(app: App, hash: Hash) -> ChunkRanges:
    """The chunks of a blob that the store holds."""
    known = await app.store.stat(hash)
    return ChunkRanges.empty() if known is None else known.bitfield


@pytest.mark.parametrize("contents", [edge_files(), ODD_NAMES], ids=["sizes", "names"])
async def test_a_collection(
    app: App, peer: Peer, scratch: Path, contents: dict[str, bytes]
) -> None:
    tree = write_tree(scratch / "tree", contents)
    async with peer.serve("provide", tree) as provider:
        listed = await app.list_remote(BlobTicket.from_text(provider.ticket))
        done = await fetch(app, provider.ticket, scratch / "out")
        again = await fetch(app, provider.ticket, scratch / "out")
    assert {file.name: file.size for file in listed} == {
        f"tree/{name}": len(data) for name, data in contents.items()
    }
    assert read_tree(scratch / "out" / "tree") == contents
    assert (done.files, done.bytes) == (len(contents), sum(map(len, contents.values())))
    assert done.bytes_fetched == sum(map(len, set(contents.values())))
    assert again.bytes_fetched == 0


@pytest.mark.parametrize("size", EDGE_SIZES)
async def test_a_raw_blob(app: App, peer: Peer, scratch: Path, size: int) -> None:
    data = random_bytes(size, seed=size)
    path = write_tree(scratch / "source", {"file": data}) / "file"
    async with peer.serve("provide", "--raw", path) as provider:
        ticket = BlobTicket.from_text(provider.ticket)
        assert await app.list_remote(ticket) == [RemoteFile(str(ticket.hash), ticket.hash, size)]
        await fetch(app, provider.ticket, scratch / "out")
        assert await cat(app, provider.ticket) == data
    assert read_tree(scratch / "out") == {str(ticket.hash): data}


async def test_ranges_of_a_blob(app: App, peer: Peer, scratch: Path) -> None:
    data = random_bytes(9 * MIB + 77, seed=5)
    path = write_tree(scratch / "source", {"file": data}) / "file"
    step = 8 * MIB
    ranges: list[tuple[int, int | None]] = [
        *[(0, 0), (0, 1), (0, GROUP), (1, GROUP + 1), (GROUP, 2 * GROUP), (1023, 1025)],
        *[(GROUP - 1, GROUP), (0, step), (0, step + 1), (step - 1, step + 1), (5, None)],
        *[(len(data) - 1, None), (len(data) - 1, len(data) + 9), (len(data), None)],
        (len(data) + MIB, len(data) + 2 * MIB),
    ]
    async with peer.serve("provide", path) as collection:
        assert await cat(app, collection.ticket, 3, 5_000) == data[3:5_000]
    async with peer.serve("provide", "--raw", path) as provider:
        for start, end in ranges:
            assert await cat(app, provider.ticket, start, end) == data[start:end], (start, end)


async def test_a_range_costs_its_groups_only(app: App, peer: Peer, scratch: Path) -> None:
    path = write_random(scratch / "file", 64 * MIB, seed=6)
    async with peer.serve("provide", "--raw", path) as provider:
        assert len(await cat(app, provider.ticket, 32 * MIB, 32 * MIB + 5)) == 5
        completed = await provider.event("completed")
    assert completed["payload_bytes_sent"] == GROUP


async def test_a_partial_provider(app: App, peer: Peer, scratch: Path) -> None:
    size = 12 * MIB + 5
    path = write_random(scratch / "file", size, seed=8)
    data = path.read_bytes()
    start, end = HELD
    partial = f"{path}:{start}..{end},last"
    async with peer.serve("provide", "--raw", "--partial", partial) as provider:
        hash = BlobTicket.from_text(provider.ticket).hash
        # What it holds can be read.
        held = data[start * 1024 : end * 1024]
        assert await cat(app, provider.ticket, start * 1024, end * 1024) == held
        assert await cat(app, provider.ticket, size - 1) == data[-1:]
        with pytest.raises((NotFoundError, PeerFailedError)) as failed:
            await fetch(app, provider.ticket, scratch / "out")
    assert failed.value.exit_code is ExitCode.NOT_FOUND
    # The first group is missing there, and nothing is skipped.
    assert not await proven(app, hash)
    assert not (scratch / "out" / str(hash)).exists()
    async with peer.serve("provide", "--raw", path) as provider:
        done = await fetch(app, provider.ticket, scratch / "out")
    assert done.bytes_fetched == size
    assert_same(scratch / "out" / str(hash), path)


@pytest.mark.parametrize("held", ["..8192", "..8192,last"])
async def test_what_a_partial_provider_has_is_kept(
    app: App, peer: Peer, scratch: Path, held: str
) -> None:
    size = 12 * MIB + 5
    path = write_random(scratch / "file", size, seed=9)
    async with peer.serve("provide", "--raw", "--partial", f"{path}:{held}") as provider:
        hash = BlobTicket.from_text(provider.ticket).hash
        with pytest.raises((NotFoundError, PeerFailedError)) as failed:
            await fetch(app, provider.ticket, scratch / "out")
    assert failed.value.exit_code is ExitCode.NOT_FOUND
    kept = await proven(app, hash)
    assert kept.issubset(ChunkRanges.of(0, 8192))
    assert kept.bytes_within(size) >= 8 * MIB - IN_FLIGHT_MAX
    async with peer.serve("provide", "--raw", path) as provider:
        done = await fetch(app, provider.ticket, scratch / "out")
    assert done.bytes_fetched == size - kept.bytes_within(size)
    assert_same(scratch / "out" / str(hash), path)


async def test_a_collection_with_a_partial_file(app: App, peer: Peer, scratch: Path) -> None:
    size = 12 * MIB + 5
    first = write_random(scratch / "a", 2 * MIB, seed=1)
    middle = write_random(scratch / "b", size, seed=2)
    last = write_random(scratch / "c", GROUP + 1, seed=3)
    held = ("--partial", f"{middle}:..8192")
    out = scratch / "out"
    async with peer.serve("provide", *held, first, last) as provider:
        hash = Hash.from_text(provider.ready["blobs"]["b"])
        with pytest.raises((NotFoundError, PeerFailedError)):
            await fetch(app, provider.ticket, out)
        # What came before the gap has its name, what came of the file in question is kept.
        assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["a"]
        assert_same(out / "a", first)
        kept = (await proven(app, hash)).bytes_within(size)
        assert kept >= 8 * MIB - IN_FLIGHT_MAX
    async with peer.serve("provide", first, middle, last) as provider:
        done = await fetch(app, provider.ticket, out)
    assert done.bytes_fetched == size - kept + last.stat().st_size
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]
    for path in (first, middle, last):
        assert_same(out / path.name, path)


@pytest.mark.parametrize(
    ("option", "kind", "error"),
    [
        ("--refuse", "get", RefusedError),
        ("--limit", "get", RateLimitedError),
        ("--refuse", "connect", RefusedError),
        ("--limit", "connect", RateLimitedError),
    ],
)
async def test_a_provider_that_refuses(
    app: App, peer: Peer, scratch: Path, option: str, kind: str, error: type[BlobsyncError]
) -> None:
    path = write_random(scratch / "file", GROUP, seed=1)
    for raw in ((), ("--raw",)):
        async with peer.serve("provide", option, kind, *raw, path) as provider:
            ticket = BlobTicket.from_text(provider.ticket)
            with pytest.raises(error) as failed:
                await fetch(app, provider.ticket, scratch / "out")
            assert type(failed.value) is error
            assert failed.value.exit_code is ExitCode.REFUSED
            with pytest.raises(error):
                await cat(app, provider.ticket)
            with pytest.raises(error):
                await app.list_remote(ticket)
    assert read_tree(scratch / "out") == {}


async def test_a_provider_that_has_enough_in_the_middle(
    app: App, peer: Peer, scratch: Path
) -> None:
    size = 32 * MIB
    path = write_random(scratch / "file", size, seed=10)
    limit = ("--limit-after", str(16 * MIB))
    async with peer.serve("provide", *limit, "--raw", path) as provider:
        hash = BlobTicket.from_text(provider.ticket).hash
        with pytest.raises(RateLimitedError):
            await fetch(app, provider.ticket, scratch / "out")
    kept = (await proven(app, hash)).bytes_within(size)
    assert 16 * MIB - IN_FLIGHT_MAX <= kept <= 16 * MIB
    async with peer.serve("provide", "--raw", path) as provider:
        done = await fetch(app, provider.ticket, scratch / "out")
    assert done.bytes_fetched == size - kept
    assert_same(scratch / "out" / str(hash), path)
