"""The asking end of the blobs protocol: requests, answers, and where the blobs go.

What was proven before a failure or a cancel is recorded before the error goes on, so that the
next try asks only for the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobsync.errors import PeerDataError, RemoteProtocolError
from blobsync.transports import ConnectionClosedError, StreamResetError
from blobsync.wire.codes import CloseCode, StreamCode, error_of_close, error_of_reset
from blobsync.wire.requests import encode_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from blobstore import Hash, PartialBlob
    from blobsync.protocols.blobs.pumps import BlobReceiver, Element, Pumps, WholeBlobs
    from blobsync.transports import Connection
    from blobsync.wire.requests import GetRequest


class BlobSink(ABC):
    """Where a getter puts what it has verified."""

    @abstractmethod
    async def add_whole(self, blobs: WholeBlobs) -> None:
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


async def check_size(partial: PartialBlob, size: int, hash: Hash, peer: str) -> None:
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
