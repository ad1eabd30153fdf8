"""The aioquic transport in the real program: with `sendme`, and with our other transport."""

import itertools
from pathlib import Path

import pytest

from tests.interop.blobsync_cli import Blobsync
from tests.interop.contents import (
    MIB,
    ODD_NAMES,
    assert_same,
    write_random,
    write_small_files,
    write_tree,
)
from tests.interop.drivers import Sendme

FILES = 2000
MIXED = [pair for pair in itertools.product(("iroh", "aioquic"), repeat=2) if "aioquic" in pair]


@pytest.fixture(params=["file", "tree", "odd names"])
def source(request: pytest.FixtureRequest, scratch: Path) -> Path:
    """What is moved: 100 MiB, two thousand small files, or names to trip over."""
    folder = scratch / "source"
    folder.mkdir()
    match request.param:
        case "file":
            return write_random(folder / "file.bin", 100 * MIB, seed=5)
        case "tree":
            return write_small_files(folder / "tree", FILES, seed=6)
        case _:
            return write_tree(folder / "odd", ODD_NAMES)


@pytest.fixture
def received(scratch: Path) -> Path:
    """Where it goes."""
    folder = scratch / "received"
    folder.mkdir()
    return folder


async def test_sendme_to_blobsync(
    sendme: Sendme, scratch: Path, source: Path, received: Path
) -> None:
    blobsync = Blobsync(scratch / "home", "aioquic")
    async with sendme.send(source, source.parent) as sender:
        ended = await blobsync.get(sender.ticket, received)
        again = await blobsync.get(sender.ticket, received)
    assert ended.status == 0, ended
    assert_same(received / source.name, source)
    assert (again.status, again.last["bytes_fetched"]) == (0, 0), again


async def test_blobsync_to_sendme(
    sendme: Sendme, scratch: Path, source: Path, received: Path
) -> None:
    async with Blobsync(scratch / "home", "aioquic").share(source) as sharer:
        assert sharer.about["transport"] == "aioquic"
        done = await sendme.receive(sharer.ticket, received)
    assert done.status == 0, done.stderr
    assert_same(received / source.name, source)
    assert await sharer.ended() == 0
    assert sharer.events("stopped")[0]["requests_refused"] == 0


@pytest.mark.parametrize(("provider", "getter"), MIXED)
async def test_blobsync_to_blobsync(
    scratch: Path, source: Path, received: Path, provider: str, getter: str
) -> None:
    async with Blobsync(scratch / "provider", provider).share(source) as sharer:
        ended = await Blobsync(scratch / "getter", getter).get(sharer.ticket, received)
    assert ended.status == 0, ended
    assert_same(received / source.name, source)


async def test_the_key_is_the_same_with_either_transport(scratch: Path) -> None:
    path = write_random(scratch / "file", 100, seed=1)
    tickets: list[str] = []
    for transport in ("iroh", "aioquic", "iroh"):
        async with Blobsync(scratch / "home", transport).share(path) as sharer:
            tickets.append(sharer.ticket)
    # Also the port is the one of the last time, if nobody else took it.
    assert len({ticket[:60] for ticket in tickets}) == 1


async def test_a_killed_get_goes_on(sendme: Sendme, scratch: Path, received: Path) -> None:
    size = 64 * MIB
    path = write_random(scratch / "source" / "file.bin", size, seed=8)
    blobsync = Blobsync(scratch / "home", "aioquic")
    async with sendme.send(path, path.parent) as sender:
        async with blobsync.getting(sender.ticket, received) as process:
            fetched = (await process.has_fetched(size // 2))["bytes_fetched"]
            process.kill()
            await process.ended()
        ended = await blobsync.get(sender.ticket, received)
    assert ended.status == 0, ended
    assert fetched + ended.last["bytes_fetched"] <= size + 16 * MIB
    assert_same(received / path.name, path)
