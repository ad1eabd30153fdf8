"""The serving end of the blobs protocol: closed by default.

Served is what was shared, and the children of a shared hash seq; what is only in the store does
not exist as far as a peer can tell. Get and GetMany are answered, every other kind is refused.
Each piece is hashed again before it leaves, so a file that changed is noticed, never served wrong.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from blobstore import BlobError, BlobFormat, HashSeq
from blobsync.errors import BlobsyncError, LocalProtocolError, RemoteProtocolError
from blobsync.protocols.blobs.pumps import BATCH_SIZE, WHOLE_SIZE_MAX
from blobsync.transports import ConnectionClosedError, StreamResetError, StreamStoppedError
from blobsync.wire.codes import StreamCode
from blobsync.wire.requests import (
    PUSH_KIND,
    REQUEST_SIZE_MAX,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    RequestKind,
    decode_request,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from blobstore import ChunkRanges, Hash, HashAndFormat, Store, WholeSource
    from blobsync.protocols.blobs.pumps import BlobSender, Pumps
    from blobsync.transports import BiStream, Connection

logger = logging.getLogger(__name__)

STREAMS_PER_CONNECTION_MAX = 64
"""Requests of one connection that are answered at once; more wait their turn."""

REQUEST_TIMEOUT_S = 30.0
"""A request that has not arrived as a whole by then is dropped."""

DECODED_AT_ONCE_MAX = 16 << 10
"""Bytes of a request that is decoded on the spot; a longer one must not hold up the others."""

BLOBS_AT_ONCE = 256
"""Blobs looked up in the store at once."""

BLOBS_LISTED = 4096
"""Blobs of an answer that are listed before they are looked up and sent."""


class SharedBlobs:
    """What a provider may serve: hashes that were granted, and children of granted hash seqs."""

    def __init__(self) -> None:
        self._formats: dict[Hash, BlobFormat] = {}

    def grant(self, target: HashAndFormat) -> None:
        """Serve this to whoever asks by its hash."""
        if self._formats.get(target.hash) is not BlobFormat.HASH_SEQ:
            self._formats[target.hash] = target.format

    def revoke(self, hash: Hash) -> None:
        """Stop serving it; answers under way go on."""
        self._formats.pop(hash, None)

    def format_of(self, hash: Hash) -> BlobFormat | None:
        """What was granted under this very hash."""
        return self._formats.get(hash)

    def hash_seqs(self) -> list[Hash]:
        """The granted hash seqs."""
        return [hash for hash, format in self._formats.items() if format is BlobFormat.HASH_SEQ]


@dataclass(slots=True)
class ProviderCounters:
    """What a provider has done so far; anyone may read them any time."""

    connections_open: int = 0
    requests: int = 0
    requests_refused: int = 0
    bytes_sent: int = 0
    """Bytes of blob content, as far as they were handed to the transport."""


class Provider:
    """Answers requests from a store."""

    def __init__(self, store: Store, shared: SharedBlobs, pumps: Pumps) -> None:
        self._store = store
        self._pumps = pumps
        self._shared = shared
        self._last_children: tuple[Hash | None, HashSeq] = None, HashSeq()
        self.counters = ProviderCounters()

    async def serve(self, connection: Connection) -> None:
        """Answer the requests of one connection until it is gone.

        Cancelled, it resets the answers under way.
        """
        slots = asyncio.Semaphore(STREAMS_PER_CONNECTION_MAX)
        self.counters.connections_open += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await slots.acquire()
                    stream = await connection.accept_bi()
                    if stream is None:
                        break
                    tasks.create_task(self._serve_stream(stream, connection, slots))
        finally:
            self.counters.connections_open -= 1

    async def _serve_stream(
        self, stream: BiStream, connection: Connection, slots: asyncio.Semaphore
    ) -> None:
        peer = connection.remote_id.short()
        try:
            await self._answer(stream, peer)
        except (StreamStoppedError, StreamResetError, ConnectionClosedError) as error:
            logger.debug("answer to %s ended early: %s", peer, error)
        except (BlobError, BlobsyncError, OSError) as error:
            # The peer learns only that it failed; what failed is for whoever runs the provider.
            logger.warning("answer to %s failed: %s", peer, error)
            stream.send.reset(StreamCode.INTERNAL)
        except Exception:
            # A fault of ours in one answer must not end the others of this connection.
            logger.exception("answer to %s failed unexpectedly", peer)
            stream.send.reset(StreamCode.INTERNAL)
        except asyncio.CancelledError:
            stream.send.reset(StreamCode.INTERNAL)
            raise
        finally:
            stream.recv.stop(StreamCode.LOST_INTEREST)
            slots.release()

    async def _answer(self, stream: BiStream, peer: str) -> None:
        """Read one request and answer it, ending the stream as the protocol says."""
        self.counters.requests += 1
        request = await self._read_request(stream)
        match request:
            case GetRequest():
                sender = self._pumps.sender(stream.send, self.counters)
                await self._send(sender, self._get_blobs(request))
            case GetManyRequest():
                sender = self._pumps.sender(stream.send, self.counters)
                await self._send(sender, self._get_many_blobs(request))
            case RequestKind():
                self.counters.requests_refused += 1
                logger.info("refused a request (%s) from %s", request.name, peer)
                stream.send.reset(StreamCode.PERMISSION)
                return
            case None:
                self.counters.requests_refused += 1
                logger.info("dropped an unreadable request from %s", peer)
        await stream.send.finish()

    async def _read_request(
        self, stream: BiStream
    ) -> GetRequest | GetManyRequest | RequestKind | None:
        """A request to answer; the kind of one to refuse; None for what is not a request at all:
        of an unknown kind, malformed, too long, or too slow to come.
        """
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                kind = await stream.recv.read(1)
                if kind == PUSH_KIND:
                    # A push goes on with data that nobody wants: its first byte is enough.
                    return RequestKind.PUSH
                body = await stream.recv.read_to_end(REQUEST_SIZE_MAX)
        except TimeoutError:
            return None
        if not kind or body is None:
            return None
        try:
            if len(body) > DECODED_AT_ONCE_MAX:
                request = await asyncio.to_thread(decode_request, kind + body)
            else:
                request = decode_request(kind + body)
        except RemoteProtocolError as error:
            logger.debug("unreadable request: %s", error)
            return None
        match request:
            case GetRequest() | GetManyRequest():
                return request
            case ObserveRequest():
                return RequestKind.OBSERVE
            case PushRequest():
                return RequestKind.PUSH

    async def _get_blobs(self, request: GetRequest) -> AsyncIterator[tuple[Hash, ChunkRanges]]:
        """The blobs of the answer in order; ends early at the first that is not served."""
        granted = self._shared.format_of(request.hash)
        if granted is None and not await self._is_shared_child(request.hash):
            return
        children: HashSeq | None = None
        for index, ranges in request.ranges.elements():
            if index == 0:
                yield request.hash, ranges
                continue
            if children is None:
                if granted is not BlobFormat.HASH_SEQ:
                    return
                children = await self._children(request.hash)
            if index > len(children):
                return
            yield children[index - 1], ranges

    async def _get_many_blobs(
        self, request: GetManyRequest
    ) -> AsyncIterator[tuple[Hash, ChunkRanges]]:
        for index, ranges in request.ranges.elements():
            if index >= len(request.hashes):
                return
            hash = request.hashes[index]
            if self._shared.format_of(hash) is None and not await self._is_shared_child(hash):
                return
            yield hash, ranges

    async def _is_shared_child(self, hash: Hash) -> bool:
        for root in self._shared.hash_seqs():
            if hash in await self._children(root):
                return True
        return False

    async def _children(self, root: Hash) -> HashSeq:
        # A getter asks for a large collection in many requests: the last one read is kept.
        known, children = self._last_children
        if known == root:
            return children
        data = await self._store.read(root)
        try:
            children = HashSeq.from_bytes(data)
        except ValueError as error:
            raise LocalProtocolError(f"{root} was shared as a hash seq: {error}") from error
        self._last_children = root, children
        return children

    async def _send(
        self, sender: BlobSender, blobs: AsyncIterator[tuple[Hash, ChunkRanges]]
    ) -> None:
        """Send blobs until the end or the first that is missing: then the answer just ends there.

        An end at an item's boundary tells the getter that the piece is not here, and leaves it
        everything that came before.
        """
        batch: list[tuple[Hash, ChunkRanges]] = []
        async for blob in blobs:
            batch.append(blob)
            if len(batch) == BLOBS_LISTED:
                if not await self._send_batch(sender, batch):
                    return
                batch = []
        await self._send_batch(sender, batch)

    async def _send_batch(
        self, sender: BlobSender, batch: Sequence[tuple[Hash, ChunkRanges]]
    ) -> bool:
        """Send some blobs; False if one is missing."""
        position = 0
        found = await self._find_whole(batch)
        while position < len(batch):
            # What comes next is looked up while this is sent.
            following = position + max(len(found), 1)
            finding = asyncio.ensure_future(self._find_whole(batch[following:]))
            try:
                sent = await sender.send_whole(found) if found else 0
                position += sent
                if sent < len(found) or not found:
                    # Too large, wanted in part, not here, or no longer what it was.
                    if not await self._send_ranges(sender, *batch[position]):
                        return False
                    position += 1
                found = await finding
            finally:
                finding.cancel()
                await asyncio.wait({finding})
            if position < following:
                found = await self._find_whole(batch[position:])
        return True

    async def _send_ranges(self, sender: BlobSender, hash: Hash, ranges: ChunkRanges) -> bool:
        """Send a part of a blob, or one by itself; False if the store does not hold it."""
        try:
            reader = await self._store.open_reader(hash)
        except LookupError:
            return False
        with reader:
            return await sender.send_ranges(reader, ranges)

    async def _find_whole(
        self, batch: Sequence[tuple[Hash, ChunkRanges]]
    ) -> list[tuple[Hash, WholeSource]]:
        """The first blobs as far as they are wanted whole and go out together."""
        first = takewhile(lambda blob: blob[1].is_all, batch[:BLOBS_AT_ONCE])
        hashes = [hash for hash, _ in first]
        if not hashes:
            return []
        found = await self._store.find_whole(hashes, size_max=WHOLE_SIZE_MAX, bytes_max=BATCH_SIZE)
        blobs: list[tuple[Hash, WholeSource]] = []
        for hash, source in zip(hashes, found, strict=False):
            if source is None:
                break
            blobs.append((hash, source))
        return blobs
