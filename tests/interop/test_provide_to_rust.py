"""Our provider, with either pumps, and a getter of the iroh-blobs crate."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from blobstore import BlobFormat, Hash, ImportMode
from blobsync.app import App, Share
from tests.interop.conftest import OpenApp
from tests.interop.contents import (
    GROUP,
    MIB,
    ODD_NAMES,
    edge_files,
    random_bytes,
    read_tree,
    write_random,
    write_tree,
)
from tests.interop.drivers import Line, Peer, PeerFailedError

pytestmark = pytest.mark.usefixtures("pumps")

CHUNK = 1024


@pytest.fixture
async def app(open_app: OpenApp, scratch: Path) -> AsyncIterator[App]:
    """Our application with an empty home."""
    async with open_app(scratch / "home") as app:
        yield app


def hashes(share: Share) -> dict[str, Hash]:
    """The shared blobs by their names in the collection."""
    return {file.name: file.hash for file in share.collection.files}


def ticket_of(share: Share, hash: Hash) -> str:
    """A ticket for one blob of a share."""
    return replace(share.ticket, hash=hash, format=BlobFormat.RAW).to_text()


def addresses(share: Share) -> str:
    """The endpoint as `ID@IP:PORT`."""
    addr = share.ticket.addr
    return f"{addr.id}@{','.join(str(ip_addr) for ip_addr in addr.ip_addrs)}"


def assert_received(blob: Line, found: bytes, data: bytes, chunks: list[tuple[int, int]]) -> None:
    """Exactly these [start, end) chunks of `data` were received, and they are right.

    What lies past the end of a blob selects its last chunk.
    """
    last = max((len(data) - 1) // CHUNK, 0)
    expected: list[list[int]] = []
    for start, end in sorted({(min(start, last), min(end, last + 1)) for start, end in chunks}):
        part = [start * CHUNK, min(end * CHUNK, len(data))]
        if expected and expected[-1][1] >= part[0]:
            expected[-1][1] = max(expected[-1][1], part[1])
        elif part[0] < part[1] or not data:
            expected.append(part)
    assert blob["size"] == len(data)
    assert blob["received"] == expected
    for start, end in expected:
        assert found[start:end] == data[start:end]


@pytest.mark.parametrize("contents", [edge_files(), ODD_NAMES], ids=["sizes", "names"])
async def test_a_collection(
    app: App, peer: Peer, scratch: Path, contents: dict[str, bytes]
) -> None:
    tree = write_tree(scratch / "tree", contents)
    share = await app.share([tree], mode=ImportMode.REFERENCE)
    done = await peer.run("get", share.ticket.to_text(), scratch / "out")
    assert sorted(done["files"]) == sorted(f"tree/{name}" for name in contents)
    assert read_tree(scratch / "out" / "tree") == contents
    assert share.counters.requests_refused == 0


async def test_each_file_alone(app: App, peer: Peer, scratch: Path) -> None:
    contents = edge_files()
    share = await app.share([write_tree(scratch / "tree", contents)], mode=ImportMode.REFERENCE)
    for name, hash in hashes(share).items():
        out = scratch / "out" / name
        await peer.run("get", ticket_of(share, hash), out)
        assert read_tree(out) == {str(hash): contents[Path(name).name]}


async def test_files_and_folders_together(app: App, peer: Peer, scratch: Path) -> None:
    tree = write_tree(scratch / "a" / "tree", {"x": b"x", "y/z": b"z" * GROUP})
    single = write_random(scratch / "b" / "single.bin", 3 * GROUP, seed=1)
    share = await app.share([tree, single], mode=ImportMode.COPY)
    await peer.run("get", share.ticket.to_text(), scratch / "out")
    assert read_tree(scratch / "out") == {
        "tree/x": b"x",
        "tree/y/z": b"z" * GROUP,
        "single.bin": single.read_bytes(),
    }


# As the peer reads them, and as [start, end) of chunks; `END` is beyond every blob here.
END = 1 << 40
RANGES: list[tuple[str, list[tuple[int, int]]]] = [
    ("all", [(0, END)]),
    ("0..16", [(0, 16)]),
    ("16..32", [(16, 32)]),
    ("5", [(5, 6)]),
    ("0..1", [(0, 1)]),
    ("15..17", [(15, 17)]),
    ("1..3,9..13,40..", [(1, 3), (9, 13), (40, END)]),
    ("0..16,last", [(0, 16), (END, END + 1)]),
    ("last", [(END, END + 1)]),
    ("1000..", [(1000, END)]),
]


@pytest.mark.parametrize("size", [0, 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 7, MIB + 1025])
async def test_ranges_of_a_blob(app: App, peer: Peer, scratch: Path, size: int) -> None:
    data = random_bytes(size, seed=size)
    path = write_tree(scratch / "source", {"file": data}) / "file"
    share = await app.share([path], mode=ImportMode.REFERENCE)
    ticket = ticket_of(share, hashes(share)["file"])
    out = scratch / "out"
    for text, chunks in RANGES:
        done = await peer.run("get-ranges", ticket, text, out)
        assert_received(done["blob"], out.read_bytes(), data, chunks)
    done = await peer.run("get-ranges", ticket, "none", out)
    assert done["blob"] is None


async def test_random_ranges_of_a_blob(app: App, peer: Peer, scratch: Path) -> None:
    data = random_bytes(5 * MIB + 333, seed=3)
    path = write_tree(scratch / "source", {"file": data}) / "file"
    share = await app.share([path], mode=ImportMode.REFERENCE)
    ticket = ticket_of(share, hashes(share)["file"])
    source = random.Random(20)
    for _ in range(12):
        edges = sorted(source.sample(range(len(data) // CHUNK), 2 * source.randint(1, 6)))
        chunks = list(zip(edges[::2], edges[1::2], strict=True))
        text = ",".join(f"{start}..{end}" for start, end in chunks)
        done = await peer.run("get-ranges", ticket, text, scratch / "out")
        assert_received(done["blob"], (scratch / "out").read_bytes(), data, chunks)


async def test_some_children(app: App, peer: Peer, scratch: Path) -> None:
    contents = edge_files()
    share = await app.share([write_tree(scratch / "tree", contents)], mode=ImportMode.REFERENCE)
    # Child 0 holds the names; file i is child i + 1.
    names = [Path(file.name).name for file in share.collection.files]
    wanted = {
        1 + i: ("all", [(0, END)]) if i % 3 else ("0..1,last", [(0, 1), (END, END + 1)])
        for i in range(0, len(names), 2)
    }
    selected = [f"{i}:{text}" for i, (text, _) in wanted.items()]
    out = scratch / "out"
    done = await peer.run("get-children", share.ticket.to_text(), out, *selected, "1000")
    assert done["count"] == len(names) + 1
    assert [child["index"] for child in done["children"]] == list(wanted)
    for child, (index, (_, chunks)) in zip(done["children"], wanted.items(), strict=True):
        data = contents[names[index - 1]]
        assert_received(child, (out / str(index)).read_bytes(), data, chunks)


async def test_get_many(app: App, peer: Peer, scratch: Path) -> None:
    contents = edge_files()
    share = await app.share([write_tree(scratch / "tree", contents)], mode=ImportMode.REFERENCE)
    by_name = hashes(share)
    # In any order, with ranges, and some twice.
    wanted: list[tuple[str, str, list[tuple[int, int]]]] = []
    for name in [*reversed(by_name), *by_name]:
        wanted.append((name, "all", [(0, END)]))
        wanted.append((name, "last", [(END, END + 1)]))
    selected = [f"{by_name[name]}:{text}" for name, text, _ in wanted]
    out = scratch / "out"
    done = await peer.run("get-many", addresses(share), out, *selected)
    assert [blob["index"] for blob in done["blobs"]] == list(range(len(wanted)))
    for i, (blob, (name, _, chunks)) in enumerate(zip(done["blobs"], wanted, strict=True)):
        data = contents[Path(name).name]
        assert_received(blob, (out / str(i)).read_bytes(), data, chunks)


async def test_get_many_ends_at_what_is_not_shared(app: App, peer: Peer, scratch: Path) -> None:
    path = write_random(scratch / "file", 2 * GROUP, seed=2)
    share = await app.share([path], mode=ImportMode.REFERENCE)
    held, absent = hashes(share)["file"], "ab" * 32
    with pytest.raises(PeerFailedError) as failed:
        await peer.run("get-many", addresses(share), scratch / "out", str(held), absent, str(held))
    assert failed.value.code is None
    assert (scratch / "out" / "0").read_bytes() == path.read_bytes()


async def test_a_file_that_changed_is_not_served(app: App, peer: Peer, scratch: Path) -> None:
    path = write_random(scratch / "file", 4 * MIB, seed=3)
    other = write_random(scratch / "other", 4 * MIB, seed=4)
    share = await app.share([path, other], mode=ImportMode.REFERENCE)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"changed")
    with pytest.raises(PeerFailedError):
        await peer.run("get", ticket_of(share, hashes(share)["file"]), scratch / "out")
    assert not (scratch / "out").exists()
    await peer.run("get", ticket_of(share, hashes(share)["other"]), scratch / "out2")
    assert list(read_tree(scratch / "out2").values()) == [other.read_bytes()]
