"""Files and trees between `sendme` and `blobsync`, both ways, compared byte for byte."""

from pathlib import Path

import pytest

from tests.interop.blobsync_cli import Blobsync
from tests.interop.contents import (
    GROUP,
    MIB,
    ODD_NAMES,
    assert_same,
    write_random,
    write_small_files,
    write_tree,
)
from tests.interop.drivers import Sendme

SIZES = [0, 1, 1024, GROUP, GROUP + 1, MIB + 1, 100 * MIB]
GIB = 1 << 30
MANY = 20_000


class Transfer:
    """One program sends to the other."""

    def __init__(self, sendme: Sendme, blobsync: Blobsync, scratch: Path) -> None:
        self.sendme = sendme
        self.blobsync = blobsync
        self.source = scratch / "source"
        self.received = scratch / "received"
        self.source.mkdir()
        self.received.mkdir()

    async def run(self, path: Path) -> None:
        """Moves what is at `path`, and compares."""
        raise NotImplementedError


class SendmeToBlobsync(Transfer):
    async def run(self, path: Path) -> None:
        async with self.sendme.send(path, self.source) as sender:
            ended = await self.blobsync.get(sender.ticket, self.received)
            again = await self.blobsync.get(sender.ticket, self.received)
        assert ended.status == 0, ended
        assert_same(self.received / path.name, path)
        assert (again.status, again.last["bytes_fetched"]) == (0, 0), again
        assert [each.name for each in self.received.iterdir()] == [path.name]


class BlobsyncToSendme(Transfer):
    async def run(self, path: Path) -> None:
        async with self.blobsync.share(path) as sharer:
            done = await self.sendme.receive(sharer.ticket, self.received)
        assert done.status == 0, done.stderr
        assert_same(self.received / path.name, path)
        # Ctrl-C is the regular end of a share.
        assert await sharer.ended() == 0
        assert sharer.events("stopped")[0]["requests_refused"] == 0


@pytest.fixture(params=[SendmeToBlobsync, BlobsyncToSendme])
def transfer(
    request: pytest.FixtureRequest, sendme: Sendme, blobsync: Blobsync, scratch: Path
) -> Transfer:
    """Either direction."""
    made = request.param(sendme, blobsync, scratch)
    assert isinstance(made, Transfer)
    return made


@pytest.mark.parametrize("size", SIZES)
async def test_a_file(transfer: Transfer, size: int) -> None:
    await transfer.run(write_random(transfer.source / "file.bin", size, seed=size))


@pytest.mark.slow
async def test_a_file_of_a_gibibyte(transfer: Transfer) -> None:
    await transfer.run(write_random(transfer.source / "file.bin", GIB, seed=7))


async def test_a_tree_with_odd_names(transfer: Transfer) -> None:
    await transfer.run(write_tree(transfer.source / "tree", ODD_NAMES))


@pytest.mark.slow
async def test_a_tree_of_many_small_files(transfer: Transfer) -> None:
    tree = write_small_files(transfer.source / "tree", MANY, seed=11)
    await transfer.run(tree)
