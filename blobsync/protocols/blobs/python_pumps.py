"""Pumps for the streams of any transport: bytes pass through Python, hashing runs in threads."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from blobstore import ChunkRanges, Hash, VerificationError
from blobstore.codec.bao import BlobDecoder, BlobEncoder, EncodingEndedError
from blobstore.codec.tree import PAIR_SIZE, outboard_size
from blobsync.errors import BlobsyncError, NotFoundError, PeerDataError, RemoteProtocolError
from blobsync.protocols.blobs.pumps import (
    BATCH_SIZE,
    WHOLE_SIZE_MAX,
    BlobBody,
    BlobReceiver,
    BlobSender,
    BlobsInMemory,
    Element,
    Pumps,
    SentCounter,
    WholeBlob,
    WholeBlobs,
)
from blobsync.wire.get_response import (
    BlobData,
    BlobEnd,
    BlobHeader,
    BlobPairs,
    GetResponseReader,
    ResponseEnd,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from blobstore import BlobReader, WholeSource
    from blobsync.transports import RecvStream, SendStream
    from blobsync.wire.get_response import GetEvent

READ_SIZE = 1 << 20
"""Bytes read from a stream, or encoded, at once."""


_ALL = ChunkRanges.all()


class PythonPumps(Pumps):
    """For streams of any transport."""

    def receiver(self, stream: RecvStream, peer: str) -> BlobReceiver:
        return _PythonReceiver(stream, peer)

    def sender(self, stream: SendStream, counter: SentCounter) -> BlobSender:
        return _PythonSender(stream, counter)


class _PythonBody(BlobBody):
    def __init__(
        self, stream: RecvStream, element: Element, size: int, unread: bytes, peer: str
    ) -> None:
        self.element = element
        self.size = size
        self.unread = unread
        """Bytes of the stream that were read and belong to what comes next."""
        self._stream = stream
        self._peer = peer
        self._decoder = BlobDecoder(element.hash, size, element.ranges)
        self._data_fd = -1
        self._outboard_fd: int | None = None
        self._feeding: asyncio.Future[None] | None = None
        self._bytes_written = 0
        self._proven = ChunkRanges.empty()
        self._size_proven = False

    def open(self, data_fd: int, outboard_fd: int | None) -> None:
        self._data_fd = data_fd
        self._outboard_fd = outboard_fd

    async def run(self, max_bytes: int | None = None) -> None:
        received = 0
        while not self._decoder.is_done and (max_bytes is None or received < max_bytes):
            data, self.unread = self.unread, b""
            data = data or await self._stream.read(READ_SIZE)
            if not data:
                self._raise_ended()
            received += len(data)
            self._feeding = asyncio.ensure_future(asyncio.to_thread(self._feed, data))
            try:
                # A thread cannot be cancelled: `settle` waits for it.
                await asyncio.shield(self._feeding)
            except VerificationError as error:
                raise PeerDataError(error.hash, error.chunk, peer=self._peer) from error
        if self._decoder.is_done:
            self.unread = self._decoder.take_unused() or self.unread

    def _feed(self, data: bytes) -> None:
        decoder = self._decoder
        try:
            decoder.feed(data)
        finally:
            # What came before a bad item is good; it is proven once it is written.
            for offset, piece in decoder.take_pieces():
                _write_all(self._data_fd, piece, offset)
                self._bytes_written += len(piece)
            if self._outboard_fd is not None:
                for offset, pair in decoder.take_pairs():
                    _write_all(self._outboard_fd, pair, offset)
            self._proven = decoder.proven
            self._size_proven = decoder.size_proven

    def _raise_ended(self) -> None:
        try:
            self._decoder.finish()
        except EncodingEndedError as error:
            hash = self.element.hash
            if error.is_within_item:
                raise RemoteProtocolError(
                    f"the answer of {self._peer} broke off within blob {hash}"
                ) from error
            raise NotFoundError(
                f"{self._peer} does not hold all of blob {hash}",
                hash=hash,
                chunk=error.chunk,
                index=self.element.index,
            ) from error

    async def settle(self) -> None:
        if self._feeding is not None:
            await asyncio.wait({self._feeding})

    @property
    def is_done(self) -> bool:
        return self._decoder.is_done

    @property
    def bytes_written(self) -> int:
        return self._bytes_written

    @property
    def proven(self) -> ChunkRanges:
        return self._proven

    @property
    def size_proven(self) -> bool:
        return self._size_proven


def _write_all(fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest = rest[written:]
        offset += written


class _PythonReceiver(BlobReceiver):
    def __init__(self, stream: RecvStream, peer: str) -> None:
        self._stream = stream
        self._peer = peer
        self._reader = GetResponseReader()
        self._has_ended = False

    async def blobs(
        self,
        elements: Sequence[Element],
        *,
        whole_max: int = WHOLE_SIZE_MAX,
        batch_bytes: int = BATCH_SIZE,
    ) -> AsyncGenerator[WholeBlobs | BlobBody]:
        reader = self._reader
        for element in elements:
            reader.expect(element.index, element.hash, element.ranges)
        batch: list[WholeBlob] = []
        batch_size = 0
        for element in elements:
            try:
                header = await self._next_event()
                assert isinstance(header, BlobHeader)
                if element.ranges.is_all and header.size <= whole_max:
                    batch.append(await self._receive_whole(element, header.size))
                    batch_size += header.size
                    if batch_size < batch_bytes:
                        continue
                    body = None
                else:
                    body = _PythonBody(
                        self._stream, element, header.size, reader.detach(), self._peer
                    )
            except BlobsyncError:
                # What was verified before it failed is handed on all the same.
                if batch:
                    yield BlobsInMemory(batch)
                raise
            if batch:
                yield BlobsInMemory(batch)
                batch, batch_size = [], 0
            if body is not None:
                yield body
                if not body.is_done:
                    raise RuntimeError("a body must be run to its end before the next blob")
                reader.resume_after_blob(body.unread)
        if batch:
            yield BlobsInMemory(batch)

    async def _receive_whole(self, element: Element, size: int) -> WholeBlob:
        pieces: list[bytes] = []
        outboard = bytearray(outboard_size(size))
        while True:
            match await self._next_event():
                case BlobData(data=data):
                    pieces.append(data)
                case BlobPairs(pairs=pairs):
                    for offset, pair in pairs:
                        outboard[offset : offset + PAIR_SIZE] = pair
                case BlobEnd():
                    return WholeBlob(element, b"".join(pieces), bytes(outboard))
                case event:
                    raise AssertionError(f"{event} within a blob")

    async def _next_event(self) -> GetEvent:
        reader = self._reader
        while True:
            try:
                event = reader.next_event()
            except VerificationError as error:
                raise PeerDataError(error.hash, error.chunk, peer=self._peer) from error
            if event is not None:
                return event
            if self._has_ended:
                raise RuntimeError("the blob before was not received to its end")
            data = await self._stream.read(READ_SIZE)
            if data:
                reader.receive(data)
            else:
                self._has_ended = True
                reader.receive_eof()

    async def end(self) -> None:
        self._reader.expect_end()
        event = await self._next_event()
        assert isinstance(event, ResponseEnd)


class _PythonSender(BlobSender):
    def __init__(self, stream: SendStream, counter: SentCounter) -> None:
        self._stream = stream
        self._counter = counter

    async def send_whole(self, blobs: Sequence[tuple[Hash, WholeSource]]) -> int:
        parts: list[bytes] = []
        waiting = 0
        for count, (hash, source) in enumerate(blobs):
            if waiting >= READ_SIZE:
                await self._stream.write(b"".join(parts))
                parts, waiting = [], 0
            pieces: list[bytes] = []
            try:
                await asyncio.to_thread(_encode_whole, hash, source, pieces)
            except (VerificationError, OSError):
                if isinstance(source.data, str):
                    await self._stream.write(b"".join(parts))
                    return count
                await self._stream.write(b"".join(parts + pieces))
                raise
            parts += pieces
            waiting += source.size
            self._counter.bytes_sent += source.size
        await self._stream.write(b"".join(parts))
        return len(blobs)

    async def send_ranges(self, reader: BlobReader, ranges: ChunkRanges) -> bool:
        encoder = BlobEncoder(reader.hash, reader.size, ranges, reader.data, reader.outboard)
        payload = ranges.bytes_within(reader.size)
        while True:
            try:
                piece = await asyncio.to_thread(encoder.next, READ_SIZE)
            except VerificationError:
                if not ranges.truncate(reader.size).issubset(reader.available):
                    return False
                raise
            if not piece:
                return True
            await self._stream.write(piece)
            sent = min(payload, len(piece))
            payload -= sent
            self._counter.bytes_sent += sent


def _encode_whole(hash: Hash, source: WholeSource, pieces: list[bytes]) -> None:
    """Append size and encoding of a blob; what was verified before an error is there."""
    if isinstance(source.data, bytes):
        _encode_into(BlobEncoder(hash, source.size, _ALL, source.data, source.outboard), pieces)
        return
    # A named pipe must not hold us up.
    fd = os.open(source.data, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _encode_into(BlobEncoder(hash, source.size, _ALL, fd, source.outboard), pieces)
    finally:
        os.close(fd)


def _encode_into(encoder: BlobEncoder, pieces: list[bytes]) -> None:
    while piece := encoder.next(READ_SIZE):
        pieces.append(piece)
