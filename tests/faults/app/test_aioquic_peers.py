"""A share over aioquic, and a peer that asks for everything and reads nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from blobstore import BlobFormat, ImportMode
from blobsync.address import SocketAddr
from blobsync.app import App, NetworkOptions
from blobsync.protocols.blobs import ALPN
from blobsync.sync.events import FetchDone
from blobsync.transports.quic.endpoint import AioquicEndpoint
from blobsync.transports.quic.streams import UNACKNOWLEDGED_MAX
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest, encode_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blobsync.app import Share
    from blobsync.transports import Connection

LOOPBACK = SocketAddr.from_text("127.0.0.1:0")
NETWORK = NetworkOptions(transport="aioquic", relay="disabled", bind=("127.0.0.1:0",))
SIZE = 24 << 20


@pytest.fixture
async def share(tmp_path: Path) -> AsyncIterator[Share]:
    (tmp_path / "large").write_bytes(bytes(SIZE))
    async with asyncio.timeout(90), App.open(tmp_path / "provider", network=NETWORK) as app:
        share = await app.share([tmp_path / "large"], mode=ImportMode.REFERENCE)
        yield share


async def dial(endpoint: AioquicEndpoint, share: Share) -> Connection:
    return await endpoint.connect(share.ticket.addr, ALPN)


async def assert_served(share: Share, folder: Path) -> None:
    """Somebody else gets all of it."""
    async with App.open(folder / "getter", network=NETWORK) as getter:
        events = [event async for event in getter.get(share.ticket, folder / "got")]
    assert isinstance(events[-1], FetchDone)
    assert (folder / "got/large").stat().st_size == SIZE


async def test_a_peer_that_never_reads(share: Share, tmp_path: Path):
    """It asks for more than a gigabyte; what waits for it is what its windows and ours allow."""
    assert share.ticket.format is BlobFormat.HASH_SEQ
    request = encode_request(GetRequest(share.ticket.hash, ChunkRangesSeq.all()))
    async with (
        await AioquicEndpoint.bind(bind=[LOOPBACK]) as endpoint,
        await dial(endpoint, share) as connection,
    ):
        streams = []
        for _ in range(50):
            stream = await connection.open_bi()
            await stream.send.write(request)
            await stream.send.finish()
            streams.append(stream)
        await assert_served(share, tmp_path)
        # 50 streams of 4 MiB unread at the peer, one more MiB of each with us.
        sent = share.counters.bytes_sent - SIZE
        assert sent <= 50 * ((4 << 20) + UNACKNOWLEDGED_MAX + (2 << 20))
