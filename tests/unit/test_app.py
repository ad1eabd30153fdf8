"""The application as a program uses it: homes of one process, over loopback."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from blobstore import (
    BlobFormat,
    BlobNotFoundError,
    Hash,
    HashAndFormat,
    ImportMode,
)
from blobsync.address import EndpointAddr, EndpointId, SocketAddr
from blobsync.app import App, NetworkOptions, OptionError, default_home
from blobsync.errors import (
    BlobsyncError,
    HostileCollectionError,
    NotFoundError,
    TicketError,
    UnreachableError,
)
from blobsync.identity import KeyFileError
from blobsync.sync.events import FetchDone
from blobsync.sync.root import Root
from blobsync.transports import BindError
from blobsync.wire.ticket import BlobTicket
from tests.needs import give_up_dialling_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from blobsync.app import Share
    from blobsync.sync.events import FetchEvent

LOOPBACK = NetworkOptions(relay="disabled", bind=("127.0.0.1:0",))
LARGE = 3_000_000


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


TREE = {
    "empty": b"",
    "small": b"small",
    "d/medium": content(1, 50_000),
    "d/large": content(2, LARGE),
}
SIZE = sum(map(len, TREE.values()))


def make_tree(folder: Path, tree: dict[str, bytes] = TREE) -> Path:
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tree_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=["auto", "aioquic"])
def network(request: pytest.FixtureRequest) -> NetworkOptions:
    return replace(LOOPBACK, transport=request.param)


@pytest.fixture
async def provider(tmp_path: Path, network: NetworkOptions) -> AsyncIterator[App]:
    async with asyncio.timeout(60), App.open(tmp_path / "provider", network=network) as app:
        yield app


@pytest.fixture
async def getter(tmp_path: Path, network: NetworkOptions) -> AsyncIterator[App]:
    async with asyncio.timeout(60), App.open(tmp_path / "getter", network=network) as app:
        yield app


@asynccontextmanager
async def sharing(app: App, *paths: Path) -> AsyncGenerator[Share]:
    share = await app.share(paths, mode=ImportMode.REFERENCE)
    try:
        yield share
    finally:
        await share.close()


async def fetch(app: App, ticket: BlobTicket, destination: Path) -> FetchDone:
    events = [event async for event in app.get(ticket, destination)]
    assert isinstance(events[-1], FetchDone)
    return events[-1]


def start_fetch(app: App, ticket: BlobTicket, destination: Path) -> AsyncGenerator[FetchEvent]:
    """One that can be left early."""
    return cast("AsyncGenerator[FetchEvent]", app.get(ticket, destination))


async def read_all(app: App, source: BlobTicket | Hash, start: int, end: int | None) -> bytes:
    return b"".join([piece async for piece in app.cat(source, start=start, end=end)])


async def test_a_tree_arrives(provider: App, getter: App, tmp_path: Path):
    source = make_tree(tmp_path / "source")
    async with sharing(provider, source) as share:
        assert (len(share.collection.files), share.collection.size) == (len(TREE), SIZE)
        assert share.refused_name is None
        assert not share.relay_is_missing
        done = await fetch(getter, share.ticket, tmp_path / "destination")
        assert (done.files, done.bytes, done.bytes_fetched) == (len(TREE), SIZE, SIZE)
        assert share.counters.bytes_sent >= SIZE
        again = await fetch(getter, share.ticket, tmp_path / "destination")
        assert again.bytes_fetched == 0
    assert tree_of(tmp_path / "destination/source") == TREE


async def test_a_ticket_names_the_home_and_where_it_is(provider: App, tmp_path: Path):
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        addr = share.ticket.addr
        assert addr.id == provider.endpoint_id()
        assert [str(each.ip) for each in addr.ip_addrs] == ["127.0.0.1"]
        assert addr.relay_urls == ()
        assert share.ticket.format is BlobFormat.HASH_SEQ
        assert BlobTicket.from_text(share.ticket.to_text()) == share.ticket


async def test_a_closed_share_can_be_closed_again_and_serves_no_more(
    provider: App, getter: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    give_up_dialling_after(monkeypatch, 0.5)
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        await share.close()
        await share.close()
        with pytest.raises(UnreachableError, match=share.ticket.addr.id.short()):
            await fetch(getter, share.ticket, tmp_path / "destination")


async def test_a_port_of_the_users_own_is_taken_or_fails(tmp_path: Path):
    source = make_tree(tmp_path / "source")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        bind = (f"127.0.0.1:{taken.getsockname()[1]}",)
        async with App.open(tmp_path / "home", network=replace(LOOPBACK, bind=bind)) as app:
            with pytest.raises(BindError):
                await app.share([source], mode=ImportMode.REFERENCE)
            # What failed holds nothing: neither the key nor the port.
            assert not (tmp_path / "home/port").exists()
    async with (
        App.open(tmp_path / "home", network=replace(LOOPBACK, bind=bind)) as app,
        sharing(app, source) as share,
    ):
        assert not share.id_is_temporary
        assert [str(addr) for addr in share.ticket.addr.ip_addrs] == [*bind]


async def test_two_shares_of_one_home(provider: App, getter: App, tmp_path: Path):
    one = make_tree(tmp_path / "one", {"a": b"one"})
    two = make_tree(tmp_path / "two", {"a": b"two"})
    async with sharing(provider, one) as first, sharing(provider, two) as second:
        assert (first.id_is_temporary, second.id_is_temporary) == (False, True)
        assert first.ticket.addr.id != second.ticket.addr.id
        # What the one serves is not for those who hold the ticket of the other.
        mixed = replace(first.ticket, hash=second.ticket.hash)
        with pytest.raises(NotFoundError):
            await fetch(getter, mixed, tmp_path / "mixed")
        for share in (first, second):
            await fetch(getter, share.ticket, tmp_path / "destination")
    assert tree_of(tmp_path / "destination") == {"one/a": b"one", "two/a": b"two"}


@pytest.mark.parametrize("name", ["aux.txt", "trailing.", "x\x01y"])
async def test_names_that_receivers_refuse_are_told(
    provider: App, getter: App, tmp_path: Path, name: str
):
    source = make_tree(tmp_path / "source", {"good": b"good", name: b"bad"})
    async with sharing(provider, source) as share:
        assert share.refused_name is not None
        with pytest.raises(HostileCollectionError):
            await fetch(getter, share.ticket, tmp_path / "destination")
    assert tree_of(tmp_path / "destination") == {}


async def test_a_failed_share_lets_go_of_the_key(provider: App, tmp_path: Path):
    with pytest.raises(Exception, match="not there"):
        await provider.share([tmp_path / "not there"], mode=ImportMode.REFERENCE)
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        assert not share.id_is_temporary


async def test_a_raw_blob_has_its_hash_for_a_name(provider: App, getter: App, tmp_path: Path):
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        for file in share.collection.files:
            ticket = BlobTicket(share.ticket.addr, file.hash, BlobFormat.RAW)
            await fetch(getter, ticket, tmp_path / "destination")
            (listed,) = await getter.list_remote(ticket)
            assert (listed.hash, listed.size) == (file.hash, file.size)
    by_hash = {file.hash.hex(): file.name for file in share.collection.files}
    arrived = tree_of(tmp_path / "destination")
    assert {f"source/{name}" for name in TREE} == {by_hash[name] for name in arrived}
    assert sorted(arrived.values()) == sorted(TREE.values())


async def test_what_a_peer_shares_is_listed_without_its_data(
    provider: App, getter: App, tmp_path: Path
):
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        listed = await getter.list_remote(share.ticket)
        assert share.counters.bytes_sent < 20_000
    assert {file.name: file.size for file in listed} == {
        f"source/{name}": len(data) for name, data in TREE.items()
    }
    assert [known async for known in getter.store.list_blobs()] == []


async def test_what_is_here_is_listed(provider: App, getter: App, tmp_path: Path):
    source = make_tree(tmp_path / "source")
    collection = await provider.add([source], mode=ImportMode.REFERENCE)
    listed = await provider.list_local(HashAndFormat(collection.hash, BlobFormat.HASH_SEQ))
    assert [(file.name, file.size) for file in listed] == [
        (file.name, file.size) for file in collection.files
    ]
    one = collection.files[-1]
    (raw,) = await provider.list_local(HashAndFormat(one.hash))
    assert (raw.name, raw.size) == (one.hash.hex(), one.size)
    for format in BlobFormat:
        with pytest.raises(BlobNotFoundError):
            await getter.list_local(HashAndFormat(collection.hash, format))


# 16 KiB is a group, 1 MiB a piece, 8 MiB a request of `cat`.
CAT_SIZE = (8 << 20) + 70_001
CAT_RANGES = [
    (0, None),
    (0, 0),
    (0, 1),
    (1, 2),
    (1023, 1025),
    (16_383, 16_385),
    (5, CAT_SIZE - 5),
    ((8 << 20) - 1, (8 << 20) + 1),
    (8 << 20, 8 << 20),
    (CAT_SIZE - 1, None),
    (CAT_SIZE - 1, CAT_SIZE),
    (CAT_SIZE, None),
    (CAT_SIZE, CAT_SIZE + 10),
    (CAT_SIZE - 3, CAT_SIZE + (1 << 30)),
    (CAT_SIZE + 100_000, None),
    (1 << 60, None),
    (1 << 60, 1 << 61),
]


async def test_cat_of_any_range(provider: App, getter: App, tmp_path: Path):
    data = content(3, CAT_SIZE)
    source = make_tree(tmp_path / "source", {"file": data})
    async with sharing(provider, source) as share:
        hash = share.collection.files[0].hash
        raw = BlobTicket(share.ticket.addr, hash, BlobFormat.RAW)
        for start, end in CAT_RANGES:
            expected = data[start:end]
            assert await read_all(provider, hash, start, end) == expected, (start, end)
            assert await read_all(getter, raw, start, end) == expected, (start, end)
        assert await read_all(getter, share.ticket, 5, 9) == data[5:9], "the only file of it"


async def test_cat_of_small_blobs(provider: App, getter: App, tmp_path: Path):
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        for file in share.collection.files:
            data = TREE[file.name.removeprefix("source/")]
            raw = BlobTicket(share.ticket.addr, file.hash, BlobFormat.RAW)
            for start, end in [(0, None), (0, 3), (2, 4), (4, None), (5, 9), (60_000, 70_000)]:
                assert await read_all(provider, file.hash, start, end) == data[start:end]
                assert await read_all(getter, raw, start, end) == data[start:end]


async def test_cat_fetches_little_of_a_large_blob(provider: App, getter: App, tmp_path: Path):
    source = make_tree(tmp_path / "source", {"file": content(3, CAT_SIZE)})
    async with sharing(provider, source) as share:
        raw = BlobTicket(share.ticket.addr, share.collection.files[0].hash, BlobFormat.RAW)
        await read_all(getter, raw, 4_000_000, 4_000_100)
        assert share.counters.bytes_sent <= 3 * 16_384


async def test_cat_of_what_cannot_be_read(provider: App, getter: App, tmp_path: Path):
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        with pytest.raises(NotFoundError, match="4 files"):
            await read_all(getter, share.ticket, 0, None)
        with pytest.raises(NotFoundError):
            await read_all(getter, replace(share.ticket, hash=Hash(bytes(32))), 0, None)
        with pytest.raises(BlobNotFoundError):
            await read_all(getter, share.ticket.hash, 0, None)


async def damaged_blobs(app: App) -> list[Hash]:
    return [
        known.hash
        async for known, good in app.verify()
        if not known.bitfield.truncate(known.size).issubset(good)
    ]


@pytest.mark.parametrize("mode", list(ImportMode))
async def test_verify_finds_damage(provider: App, tmp_path: Path, mode: ImportMode):
    """Of a file of the user's and of one of the store's own, without a trace in its status."""
    source = make_tree(tmp_path / "source")
    collection = await provider.add([source], mode=mode)
    hashes = {file.name: file.hash for file in collection.files}
    assert await damaged_blobs(provider) == []
    large = hashes["source/d/large"]
    if mode is ImportMode.REFERENCE:
        path = source / "d/large"
    else:
        (path,) = [
            each
            for each in (provider.home / "store/data").rglob("*")
            if each.is_file() and each.stat().st_size == LARGE
        ]
    old = path.stat()
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(bytes(10))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert await damaged_blobs(provider) == [large]
    known = await provider.store.stat(large)
    assert known is None or not known.is_complete, "what is bad is no longer claimed"
    with pytest.raises(BlobNotFoundError):
        await read_all(provider, large, 0, None)
    for name, hash in hashes.items():
        if hash != large:
            assert await read_all(provider, hash, 0, None) == TREE[name.removeprefix("source/")]


async def test_verify_of_some(provider: App, tmp_path: Path):
    collection = await provider.add([make_tree(tmp_path / "source")], mode=ImportMode.REFERENCE)
    one = collection.files[0].hash
    assert [known.hash async for known, _ in provider.verify([one])] == [one]
    with pytest.raises(BlobNotFoundError):
        [each async for each in provider.verify([Hash(bytes(32))])]


async def test_a_share_is_kept_while_it_is_served(provider: App, getter: App, tmp_path: Path):
    """Whatever becomes of its tag."""
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        for tag in await provider.tags():
            await provider.store.delete_tag(tag.name)
        await provider.gc()
        await fetch(getter, share.ticket, tmp_path / "destination")
    assert tree_of(tmp_path / "destination/source") == TREE
    report = await provider.gc(dry_run=True)
    assert report.blobs == len(TREE) - 1 + 2, "all but the empty one, the names and the root"


async def test_what_was_fetched_is_kept_by_a_tag(provider: App, getter: App, tmp_path: Path):
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        await fetch(getter, share.ticket, tmp_path / "destination")
    assert (await getter.gc()).blobs == 0
    (tag,) = await getter.tags()
    assert tag.target == share.ticket.target


async def test_a_get_that_is_left_or_cancelled_goes_on_later(
    provider: App, getter: App, tmp_path: Path
):
    source = make_tree(tmp_path / "source")
    destination = tmp_path / "destination"
    async with sharing(provider, source) as share:
        events = start_fetch(getter, share.ticket, destination)
        await anext(events)
        await events.aclose()
        fetching = asyncio.ensure_future(fetch(getter, share.ticket, destination))
        await asyncio.sleep(0)
        fetching.cancel()
        with suppress(asyncio.CancelledError):
            await fetching
        await fetch(getter, share.ticket, destination)
    assert tree_of(destination / "source") == TREE


async def test_what_another_fetch_left_unfinished_is_removed(
    provider: App, getter: App, tmp_path: Path
):
    """Of two fetches into one folder the second finds the name taken, and leaves its file hidden.

    Its next run found the file there, had nothing to do, and the hidden one stayed for good.
    """
    destination = tmp_path / "destination"
    async with sharing(provider, make_tree(tmp_path / "source")) as share:
        await fetch(getter, share.ticket, destination)
        (large,) = [file for file in share.collection.files if file.size == LARGE]
        components = tuple(large.name.split("/"))
        with Root.open(destination) as root:
            with root.open_partial(components, large.hash.hex()) as left:
                os.pwrite(left.fd, b"x" * 100_000, 0)
                await fetch(getter, share.ticket, destination)
                assert left.path.exists(), "someone is writing it"
            done = await fetch(getter, share.ticket, destination)
            assert not left.path.exists()
    assert done.bytes_fetched == 0
    assert tree_of(destination / "source") == TREE


async def test_an_app_that_is_left_stops_its_shares(getter: App, tmp_path: Path):
    source = make_tree(tmp_path / "source", {"large": content(4, 30_000_000)})
    async with App.open(tmp_path / "provider", network=LOOPBACK) as provider:
        share = await provider.share([source], mode=ImportMode.REFERENCE)
        events = start_fetch(getter, share.ticket, tmp_path / "destination")
        await anext(events)
    with suppress(BlobsyncError, StopAsyncIteration):
        # It fails, unless all had arrived.
        while True:
            await anext(events)
    await events.aclose()
    await share.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
async def test_over_ipv6(getter: App, tmp_path: Path):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no ::1 on this machine")
    network = NetworkOptions(relay="disabled", bind=("[::1]:0",))
    source = make_tree(tmp_path / "source")
    async with (
        App.open(tmp_path / "provider", network=network) as provider,
        App.open(tmp_path / "v6", network=network) as v6,
        sharing(provider, source) as share,
    ):
        assert [str(addr.ip) for addr in share.ticket.addr.ip_addrs] == ["::1"]
        done = await fetch(v6, share.ticket, tmp_path / "destination")
        assert done.bytes_fetched == SIZE
        # A getter of any interface finds it as well.
        async with App.open(tmp_path / "any", network=NetworkOptions()) as anywhere:
            await fetch(anywhere, share.ticket, tmp_path / "again")
    assert tree_of(tmp_path / "destination/source") == TREE
    assert tree_of(tmp_path / "again/source") == TREE


async def test_a_silent_peer_is_unreachable(
    provider: App, getter: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    give_up_dialling_after(monkeypatch, 0.5)
    id = provider.endpoint_id()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        there = SocketAddr.from_text(f"127.0.0.1:{silent.getsockname()[1]}")
        ticket = BlobTicket(EndpointAddr(id, ip_addrs=(there,)), Hash(bytes(32)), BlobFormat.RAW)
        errors = await asyncio.gather(
            fetch(getter, ticket, tmp_path / "destination"),
            getter.list_remote(ticket),
            read_all(getter, ticket, 0, None),
            return_exceptions=True,
        )
    for error in errors:
        assert isinstance(error, UnreachableError)
        assert id.short() in str(error)
        assert not error.is_permanent
    assert not (tmp_path / "destination").exists()


async def test_an_empty_folder_arrives_as_one(provider: App, getter: App, tmp_path: Path):
    (tmp_path / "source").mkdir()
    async with sharing(provider, tmp_path / "source") as share:
        done = await fetch(getter, share.ticket, tmp_path / "destination")
    assert (done.files, done.bytes) == (0, 0)
    assert tree_of(tmp_path / "destination") == {}
    assert (tmp_path / "destination").is_dir()


async def test_a_key_that_nobody_can_have(getter: App, tmp_path: Path):
    addr = EndpointAddr(EndpointId(bytes(32)), ip_addrs=(SocketAddr.from_text("127.0.0.1:9"),))
    ticket = BlobTicket(addr, Hash(bytes(32)), BlobFormat.RAW)
    with pytest.raises(TicketError, match="key"):
        await fetch(getter, ticket, tmp_path / "destination")


async def test_a_damaged_key_is_told(provider: App, tmp_path: Path):
    (tmp_path / "provider/key").write_bytes(b"\xff")
    with pytest.raises(KeyFileError):
        provider.endpoint_id()
    with pytest.raises(KeyFileError):
        await provider.share([tmp_path], mode=ImportMode.REFERENCE)
    assert (tmp_path / "provider/key").read_bytes() == b"\xff"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), []),
        (("1.2.3.4",), ["1.2.3.4:0"]),
        (("1.2.3.4:5", "::1"), ["1.2.3.4:5", "[::1]:0"]),
        (("[::1]",), ["[::1]:0"]),
        (("[::]:7",), ["[::]:7"]),
    ],
)
def test_addresses_to_bind(texts: tuple[str, ...], expected: list[str]):
    assert [str(addr) for addr in NetworkOptions(bind=texts).bind_addrs()] == expected


@pytest.mark.parametrize("text", ["", "host:1", "1.2.3.4:65536", "1.2.3:4", "[::1", ":80", "::1:x"])
def test_what_cannot_be_bound(text: str):
    with pytest.raises(OptionError, match="cannot bind"):
        NetworkOptions(bind=(text,)).bind_addrs()


def test_relays():
    assert NetworkOptions().relays(if_unset=("a",)) == ("a",)
    assert NetworkOptions(relay="default").relays(if_unset=("a",)) is None
    assert NetworkOptions(relay="disabled").relays(if_unset=("a",)) == ()
    assert NetworkOptions(relay="https://R.example").relays(if_unset=()) == ("https://r.example/",)
    with pytest.raises(OptionError, match="not a relay"):
        NetworkOptions(relay="ftp://x").relays(if_unset=())


def test_the_home_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BLOBSYNC_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.setenv("BLOBSYNC_HOME", "")
    assert default_home().name == "blobsync"
