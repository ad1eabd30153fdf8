"""What a shell sees of `blobsync get` when a provider of the iroh-blobs crate says no."""

from pathlib import Path

import pytest

from blobsync.errors import ExitCode
from tests.interop.blobsync_cli import Blobsync
from tests.interop.contents import MIB, write_random
from tests.interop.drivers import Peer


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--refuse", "get"), ExitCode.REFUSED),
        (("--limit", "get"), ExitCode.REFUSED),
        (("--refuse", "connect"), ExitCode.REFUSED),
        (("--limit-after", str(16 * MIB)), ExitCode.REFUSED),
    ],
)
async def test_exit_codes(
    blobsync: Blobsync, peer: Peer, scratch: Path, options: tuple[str, ...], status: ExitCode
) -> None:
    path = write_random(scratch / "file", 32 * MIB, seed=12)
    async with peer.serve("provide", *options, path) as provider:
        ended = await blobsync.get(provider.ticket, scratch / "out")
    assert (ended.status, ended.last["event"]) == (status, "error")
    assert ended.last["exit_code"] == status
    assert ended.last["retry"] is ("--limit" in options[0])


async def test_the_exit_code_of_a_partial_provider(
    blobsync: Blobsync, peer: Peer, scratch: Path
) -> None:
    path = write_random(scratch / "file", 4 * MIB, seed=13)
    async with peer.serve("provide", "--raw", "--partial", f"{path}:..1024") as provider:
        ended = await blobsync.get(provider.ticket, scratch / "out")
    assert ended.status == ExitCode.NOT_FOUND, ended
