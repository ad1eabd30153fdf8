"""The contract of the pumps, which move blobs between a stream and descriptors.

Receiving, nothing is handed on or written that was not checked against its hash; sending, each
piece is hashed again before it leaves. There are two implementations: `python_pumps` for any
transport, and `iroh_pumps`, where the binding does all of it beside Python.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, overload

import pybao

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from blobstore import BlobReader, ChunkRanges, Hash, WholeSource
    from blobsync.transports import RecvStream, SendStream

WHOLE_SIZE_MAX = 1 << 20
"""Blobs up to this size that are asked for as a whole are handed on in memory, in batches."""

BATCH_SIZE = 2 << 20
"""About this many bytes of whole blobs make a batch."""


@dataclass(frozen=True, slots=True)
class Element:
    """One blob of a request: what to ask of it."""

    index: int
    """Place in the request: 0 is the root, i + 1 its child i; in a GetMany, the place."""
    hash: Hash
    ranges: ChunkRanges
    """Never empty: an empty element does not appear in the answer."""


@dataclass(frozen=True, slots=True)
class WholeBlob:
    """A verified blob in memory."""

    element: Element
    data: bytes
    outboard: bytes


class WholeBlobs(ABC, Sequence[WholeBlob]):
    """Verified blobs in memory, in the order in which they came.

    Their bytes may be outside of Python and are copied into it when they are asked for.
    """

    elements: Sequence[Element]
    sizes: Sequence[int]
    """Bytes of each blob."""

    @abstractmethod
    def data(self, position: int) -> bytes:
        """All of a blob."""

    @abstractmethod
    def outboard(self, position: int) -> bytes:
        """Its outboard."""

    @abstractmethod
    def write_files(
        self,
        folder_fds: Sequence[int],
        files: Sequence[tuple[int, int, bytes, bytes]],
        keep_open_over: int,
    ) -> list[int | None]:
        """Write blobs to new files: position, then as for `pybao.write_files`."""

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> WholeBlob: ...
    @overload
    def __getitem__(self, index: slice) -> list[WholeBlob]: ...
    def __getitem__(self, index: int | slice) -> WholeBlob | list[WholeBlob]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return WholeBlob(self.elements[position], self.data(position), self.outboard(position))


class BlobsInMemory(WholeBlobs):
    """Blobs whose bytes Python has."""

    def __init__(self, blobs: Sequence[WholeBlob]) -> None:
        self._blobs = blobs
        self.elements = [blob.element for blob in blobs]
        self.sizes = [len(blob.data) for blob in blobs]

    def data(self, position: int) -> bytes:
        return self._blobs[position].data

    def outboard(self, position: int) -> bytes:
        return self._blobs[position].outboard

    def write_files(
        self,
        folder_fds: Sequence[int],
        files: Sequence[tuple[int, int, bytes, bytes]],
        keep_open_over: int,
    ) -> list[int | None]:
        entries = [(folder, hidden, name, self.data(i)) for i, folder, hidden, name in files]
        return pybao.write_files(folder_fds, entries, keep_open_over)


class BlobBody(ABC):
    """The rest of a blob whose size header was read: to be written to descriptors, verified.

    It must be run to its end before the next blob of the answer is asked for.
    """

    element: Element
    size: int
    """As the peer claims; see `size_proven`."""

    @abstractmethod
    def open(self, data_fd: int, outboard_fd: int | None) -> None:
        """Say where data and outboard go, each at its place; keep both open until `settle`."""

    @abstractmethod
    async def run(self, max_bytes: int | None = None) -> None:
        """Receive, verify and write; with `max_bytes` stop after about so many.

        Cancelled or failed, what was proven stays proven.
        """

    async def run_ahead(self, max_bytes: int) -> None:
        """Like `run`, but what was received last may be written only after it."""
        await self.run(max_bytes)

    @abstractmethod
    async def settle(self) -> None:
        """Wait until nothing writes to the descriptors, after a cancelled `run` too, and let go
        of them. The counters stay; nothing can be run any more.
        """

    @property
    @abstractmethod
    def is_done(self) -> bool: ...

    @property
    @abstractmethod
    def bytes_written(self) -> int:
        """Verified bytes written so far."""

    @property
    def bytes_received(self) -> int:
        """Those, and at least what is received and not written yet."""
        return self.bytes_written

    @property
    @abstractmethod
    def proven(self) -> ChunkRanges:
        """Chunks verified and written so far."""

    @property
    @abstractmethod
    def size_proven(self) -> bool: ...


class BlobReceiver(ABC):
    """Reads the blobs of one answer in their order."""

    @abstractmethod
    def blobs(
        self,
        elements: Sequence[Element],
        *,
        whole_max: int = WHOLE_SIZE_MAX,
        batch_bytes: int = BATCH_SIZE,
    ) -> AsyncGenerator[WholeBlobs | BlobBody]:
        """The next blobs of the answer, which are to be `elements`.

        Whole blobs up to `whole_max` bytes come in batches of about `batch_bytes`, of which some
        may be received ahead; any other comes as a `BlobBody`.

        Raises:
            NotFoundError: the answer ended where a piece was due.
            PeerDataError: a piece does not match its hash.
            RemoteProtocolError: the answer ended within an item, or a size is impossible.
            StreamResetError, ConnectionClosedError: see the transport.
        """

    @abstractmethod
    async def end(self) -> None:
        """All is received: the stream must end here.

        Raises:
            RemoteProtocolError: there is more.
        """


class SentCounter(Protocol):
    """What counts the bytes of blob content that were handed to the transport."""

    bytes_sent: int


class BlobSender(ABC):
    """Writes the blobs of one answer in their order."""

    @abstractmethod
    async def send_whole(self, blobs: Sequence[tuple[Hash, WholeSource]]) -> int:
        """Send whole blobs of up to a few MiB.

        Returns how many were sent: the first one that a file no longer holds ends it, and nothing
        of that one was sent. Opened by itself it may be found elsewhere, or what happened to it.

        Raises:
            VerificationError: bytes that were given do not match their hash; nothing of the piece
                that does not was sent.
            StreamStoppedError, ConnectionClosedError: see the transport.
        """

    @abstractmethod
    async def send_ranges(self, reader: BlobReader, ranges: ChunkRanges) -> bool:
        """Send size and ranges of one blob.

        False: the reader does not hold all of them; everything before the first gap was sent.

        Raises:
            VerificationError: the data changed or is damaged; what was sent before it is right.
            StreamStoppedError, ConnectionClosedError: see the transport.
        """


class Pumps(ABC):
    """Makes receivers and senders for the streams of one transport."""

    @abstractmethod
    def receiver(self, stream: RecvStream, peer: str) -> BlobReceiver:
        """Read the answer that arrives on a stream from `peer` (a name for messages)."""

    @abstractmethod
    def sender(self, stream: SendStream, counter: SentCounter) -> BlobSender:
        """Write an answer to a stream."""
