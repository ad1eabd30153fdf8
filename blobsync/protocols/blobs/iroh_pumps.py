"""Pumps over the iroh binding: it receives, verifies and writes, or reads, checks and sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyiroh
from blobstore import ChunkRanges, Hash, VerificationError
from blobsync.errors import BlobsyncError, NotFoundError, PeerDataError, RemoteProtocolError
from blobsync.protocols.blobs.pumps import (
    BATCH_SIZE,
    WHOLE_SIZE_MAX,
    BlobBody,
    BlobReceiver,
    BlobSender,
    Element,
    Pumps,
    SentCounter,
    WholeBlobs,
)
from blobsync.transports.iroh import (
    IrohRecvStream,
    IrohSendStream,
    translate_error,
    translated_errors,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from blobstore import BlobReader, WholeSource
    from blobsync.transports import RecvStream, SendStream

SENT_POLL_S = 0.25
"""How often the counter of sent bytes is brought up to date during a large blob."""


class IrohPumps(Pumps):
    """For streams of `transports.iroh`."""

    def receiver(self, stream: RecvStream, peer: str) -> BlobReceiver:
        if not isinstance(stream, IrohRecvStream):
            raise TypeError("the pumps of the iroh binding take its streams only")
        return _IrohReceiver(stream.native, peer)

    def sender(self, stream: SendStream, counter: SentCounter) -> BlobSender:
        if not isinstance(stream, IrohSendStream):
            raise TypeError("the pumps of the iroh binding take its streams only")
        return _IrohSender(stream.native, counter)


def _received_error(error: pyiroh.IrohError, element: Element, peer: str) -> BlobsyncError:
    if not isinstance(error, pyiroh.VerifyError):
        return translate_error(error)
    match error.kind:
        case "parent_hash_mismatch" | "leaf_hash_mismatch":
            return PeerDataError(element.hash, error.chunk, peer=peer)
        case "size_not_found" | "parent_not_found" | "leaf_not_found":
            return NotFoundError(
                f"{peer} does not hold {'all of ' * (error.kind != 'size_not_found')}"
                f"blob {element.hash}",
                hash=element.hash,
                chunk=error.chunk,
                index=element.index,
            )
        case kind:
            return RemoteProtocolError(
                f"{peer} sent a broken answer for blob {element.hash}: {kind.replace('_', ' ')}"
            )


class _IrohBody(BlobBody):
    def __init__(self, stream: pyiroh.RecvStream, element: Element, size: int, peer: str) -> None:
        self.element = element
        self.size = size
        self._stream = stream
        self._peer = peer
        self._pump: pyiroh.BlobPump | None = None
        self._last = _Snapshot()

    def open(self, data_fd: int, outboard_fd: int | None) -> None:
        element = self.element
        try:
            self._pump = self._stream.blob_pump(
                element.hash, self.size, element.ranges.boundaries, data_fd, outboard_fd
            )
        except pyiroh.VerifyError as error:
            raise _received_error(error, element, self._peer) from error

    @property
    def _running(self) -> pyiroh.BlobPump:
        if self._pump is None:
            raise RuntimeError("the body is not open")
        return self._pump

    async def run(self, max_bytes: int | None = None) -> None:
        await self._run(max_bytes)

    async def run_ahead(self, max_bytes: int) -> None:
        await self._run(max_bytes, ahead=True)

    async def _run(self, max_bytes: int | None, *, ahead: bool = False) -> None:
        try:
            await self._running.run(max_bytes, ahead=ahead)
        except pyiroh.IrohError as error:
            raise _received_error(error, self.element, self._peer) from error

    async def settle(self) -> None:
        pump = self._running
        with translated_errors():
            await pump.settled()
        self._last = _Snapshot.of(pump)
        # The pump holds duplicates of the descriptors, and with them their locks.
        self._pump = None

    @property
    def _now(self) -> _Snapshot:
        return self._last if self._pump is None else _Snapshot.of(self._pump)

    @property
    def is_done(self) -> bool:
        return self._last.is_done if self._pump is None else self._pump.is_done

    @property
    def bytes_written(self) -> int:
        return self._last.bytes_written if self._pump is None else self._pump.bytes

    @property
    def bytes_received(self) -> int:
        # In this order, what is written meanwhile counts twice and not never.
        pending = 0 if self._pump is None else self._pump.pending
        return pending + self.bytes_written

    @property
    def proven(self) -> ChunkRanges:
        return self._now.proven

    @property
    def size_proven(self) -> bool:
        return self._now.size_proven


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a pump has done at one moment."""

    is_done: bool = False
    bytes_written: int = 0
    proven: ChunkRanges = field(default_factory=ChunkRanges.empty)
    size_proven: bool = False

    @classmethod
    def of(cls, pump: pyiroh.BlobPump) -> _Snapshot:
        return cls(pump.is_done, pump.bytes, ChunkRanges(pump.proven), pump.size_proven)


class _IrohBlobs(WholeBlobs):
    """Blobs whose bytes the binding has."""

    def __init__(self, native: pyiroh.WholeBlobs, elements: Sequence[Element]) -> None:
        self._native = native
        self.elements = [elements[index] for index in native.indices]
        self.sizes = native.sizes

    def data(self, position: int) -> bytes:
        return self._native.data(position)

    def outboard(self, position: int) -> bytes:
        return self._native.outboard(position)

    def write_files(
        self,
        folder_fds: Sequence[int],
        files: Sequence[tuple[int, int, bytes, bytes]],
        keep_open_over: int,
    ) -> list[int | None]:
        return self._native.write_files(folder_fds, files, keep_open_over)


class _IrohReceiver(BlobReceiver):
    def __init__(self, stream: pyiroh.RecvStream, peer: str) -> None:
        self._stream = stream
        self._peer = peer

    async def blobs(
        self,
        elements: Sequence[Element],
        *,
        whole_max: int = WHOLE_SIZE_MAX,
        batch_bytes: int = BATCH_SIZE,
    ) -> AsyncGenerator[WholeBlobs | BlobBody]:
        start = 0
        while start < len(elements):
            if not elements[start].ranges.is_all:
                yield await self._next_body(elements[start])
                start += 1
                continue
            end = start + 1
            while end < len(elements) and elements[end].ranges.is_all:
                end += 1
            run = elements[start:end]
            pump = self._stream.batch_pump([each.hash for each in run], whole_max, batch_bytes)
            while True:
                try:
                    batch = await pump.next()
                except pyiroh.IrohError as error:
                    raise _received_error(error, run[pump.index], self._peer) from error
                if not batch:
                    break
                yield _IrohBlobs(batch, run)
            if pump.large is None:
                start = end
            else:
                index, size = pump.large
                yield _IrohBody(self._stream, run[index], size, self._peer)
                start += index + 1

    async def _next_body(self, element: Element) -> BlobBody:
        try:
            header = await self._stream.read_exact(8)
        except pyiroh.IncompleteRead as error:
            kind = "truncated" if error.partial else "size_not_found"
            raise _received_error(pyiroh.VerifyError(kind), element, self._peer) from error
        except pyiroh.IrohError as error:
            raise translate_error(error) from error
        return _IrohBody(self._stream, element, int.from_bytes(header, "little"), self._peer)

    async def end(self) -> None:
        with translated_errors():
            if await self._stream.read(1):
                raise RemoteProtocolError(f"{self._peer} sent more than was asked for")


class _IrohSender(BlobSender):
    def __init__(self, stream: pyiroh.SendStream, counter: SentCounter) -> None:
        self._stream = stream
        self._counter = counter

    async def send_whole(self, blobs: Sequence[tuple[Hash, WholeSource]]) -> int:
        native = [
            (hash, data if isinstance(data, bytes) else (data, size), outboard)
            for hash, (data, size, outboard) in blobs
        ]
        try:
            count = await self._stream.pump_many(native)
        except pyiroh.VerifyError as error:
            hash, _ = blobs[0 if error.index is None else error.index]
            raise VerificationError(hash, error.chunk) from error
        except pyiroh.IrohError as error:
            raise translate_error(error) from error
        self._counter.bytes_sent += sum(source.size for _, source in blobs[:count])
        return count

    async def send_ranges(self, reader: BlobReader, ranges: ChunkRanges) -> bool:
        progress = pyiroh.PumpProgress()
        sending = asyncio.ensure_future(
            self._stream.pump_blob(
                reader.hash,
                reader.size,
                ranges.boundaries,
                reader.data,
                reader.outboard,
                progress=progress,
            )
        )
        counted = 0
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=SENT_POLL_S)
                self._counter.bytes_sent += progress.bytes - counted
                counted = progress.bytes
        finally:
            sending.cancel()
            await asyncio.wait({sending})
        try:
            sending.result()
        except pyiroh.VerifyError as error:
            if not ranges.truncate(reader.size).issubset(reader.available):
                return False
            raise VerificationError(reader.hash, error.chunk) from error
        except pyiroh.IrohError as error:
            raise translate_error(error) from error
        return True
