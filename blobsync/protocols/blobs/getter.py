"""The asking end of the blobs protocol: requests, answers, and where the blobs go.

What was proven before a failure or a cancel is recorded before the error goes on, so that the
next try asks only for the rest.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blobstore import ChunkRanges
from blobsync.errors import PeerDataError, RemoteProtocolError
from blobsync.protocols.blobs.pumps import BlobBody
from blobsync.transports import ConnectionClosedError, StreamResetError
from blobsync.wire.codes import CloseCode, StreamCode, error_of_close, error_of_reset
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import GetRequest, encode_request, split_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from blobstore import Hash, PartialBlob
    from blobsync.protocols.blobs.pumps import BlobReceiver, Element, Pumps, WholeBlob
    from blobsync.transports import Connection

STEP_BYTES = 6 << 20
"""Bytes received between two records of what is proven: at most two steps are lost by a kill."""

STEP_S = 1.0
"""Seconds between two records on a slow connection."""


class BlobSink(ABC):
    """Where a getter puts what it has verified."""

    @abstractmethod
    async def add_whole(self, blobs: Sequence[WholeBlob]) -> None:
        """Take verified blobs in memory."""

    @abstractmethod
    async def open_partial(self, element: Element, size: int) -> PartialBlob:
        """Where a larger blob goes; `size` is the peer's claim."""

    @abstractmethod
    async def complete(self, element: Element, partial: PartialBlob) -> None:
        """All of a larger blob is there and proven."""


@dataclass(slots=True)
class GetProgress:
    """Counters of running gets; the getter writes them, anyone may read them any time."""

    bytes_fetched: int = 0
    """Verified bytes of blob content that came over the network."""


async def get_elements(
    connection: Connection,
    pumps: Pumps,
    root: Hash,
    elements: Sequence[Element],
    sink: BlobSink,
    progress: GetProgress,
) -> None:
    """Fetch parts of a root blob and its children, whose hashes are known, into a sink.

    `elements` ascend by index. A request over the limit of the protocol is split.

    Raises:
        RefusedError, RateLimitedError: the peer does not serve this, or not now.
        NotFoundError, PeerFailedError: the peer lacks a piece or failed.
        PeerDataError: it sent bytes that do not match their hash.
        RemoteProtocolError: it does not keep to the protocol.
        ConnectionClosedError: the connection is gone.
    """
    by_index = {element.index: element for element in elements}
    ranges = ChunkRangesSeq.from_elements((each.index, each.ranges) for each in elements)
    for request in split_request(GetRequest(root, ranges)):
        assert isinstance(request, GetRequest)
        # An element with more intervals than a request can hold comes round in several parts.
        part = [replace(by_index[i], ranges=ranges) for i, ranges in request.ranges.elements()]
        async with open_answer(connection, pumps, request) as answer:
            await _receive(answer, part, sink, progress, connection.remote_id.short())
            await answer.end()


async def _receive(
    answer: BlobReceiver,
    elements: Sequence[Element],
    sink: BlobSink,
    progress: GetProgress,
    peer: str,
) -> None:
    async for item in answer.blobs(elements):
        if isinstance(item, BlobBody):
            await _receive_body(item, sink, progress, peer)
        else:
            progress.bytes_fetched += sum(len(blob.data) for blob in item)
            await sink.add_whole(item)


async def _receive_body(body: BlobBody, sink: BlobSink, progress: GetProgress, peer: str) -> None:
    element = body.element
    fetched_before = progress.bytes_fetched
    async with await sink.open_partial(element, body.size) as partial:
        await _check_size(partial, body.size, element.hash, peer)
        body.open(partial.data_fd, partial.outboard_fd)
        try:
            while not body.is_done:
                # One step is received while the one before it is recorded.
                step = asyncio.ensure_future(body.run(STEP_BYTES))
                try:
                    while not step.done():
                        await _record(body, partial)
                        await asyncio.wait({step}, timeout=STEP_S)
                        progress.bytes_fetched = fetched_before + body.bytes_written
                finally:
                    step.cancel()
                    await asyncio.wait({step})
                step.result()
        finally:
            await body.settle()
            progress.bytes_fetched = fetched_before + body.bytes_written
            await _record(body, partial)
        if partial.size_proven and ChunkRanges.all().truncate(body.size).issubset(partial.bitfield):
            await sink.complete(element, partial)


async def _check_size(partial: PartialBlob, size: int, hash: Hash, peer: str) -> None:
    """An outboard has its shape from the size, so both must be of one.

    Raises:
        PeerDataError: the peer claims another size than the one that is proven.
        RemoteProtocolError: an earlier claim was another, and neither is proven.
    """
    if partial.size is None or partial.size == size:
        return
    if partial.size_proven:
        raise PeerDataError(hash, peer=peer)
    await partial.discard()
    raise RemoteProtocolError(
        f"{peer} claims {size} bytes for {hash}, an earlier answer claimed {partial.size}; "
        "what was fetched was thrown away: try again"
    )


async def _record(body: BlobBody, partial: PartialBlob) -> None:
    proven = body.proven
    if proven and not proven.issubset(partial.bitfield):
        await partial.record(proven, body.size, size_proven=body.size_proven)


@asynccontextmanager
async def open_answer(
    connection: Connection, pumps: Pumps, request: GetRequest
) -> AsyncGenerator[BlobReceiver]:
    """Send a request; what it gives reads the answer. Leaving it early stops the peer."""
    peer = connection.remote_id.short()
    try:
        stream = await connection.open_bi()
        try:
            await stream.send.write(encode_request(request))
            await stream.send.finish()
            yield pumps.receiver(stream.recv, peer)
        finally:
            # After a complete answer this does nothing.
            stream.recv.stop(StreamCode.LOST_INTEREST)
    except StreamResetError as error:
        raise error_of_reset(error.code, peer) from error
    except ConnectionClosedError as error:
        if error.code in (CloseCode.PERMISSION, CloseCode.LIMIT):
            # A provider that serves none of this peer's requests accepts the connection, then
            # closes it.
            raise error_of_close(error.code, peer) from error
        raise
