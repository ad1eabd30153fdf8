"""One answer to a Get or GetMany: the state machines of its two ends.

The answer is the encodings of the selected blobs back to back, each the size and then the bao
encoding of the chosen ranges; then the stream ends. Nothing in it says which blob comes next: the
getter knows from its request and, for children, from the root.

The reader hands on nothing that was not checked, with two exceptions that it marks: the size in a
`BlobHeader` is a claim until `BlobEnd.size_proven`. An end of the stream between two items means
that the provider does not hold what comes next; within an item, that something broke.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobstore.codec.bao import (
    ITEM_SIZE_MAX,
    SIZE_HEADER_SIZE,
    BlobDecoder,
    BlobEncoder,
    EncodingEndedError,
)
from blobstore.codec.hash import EMPTY_HASH, Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import BLOB_SIZE_MAX
from blobstore.errors import VerificationError
from blobsync.errors import LocalProtocolError, NotFoundError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class BlobHeader:
    """The answer begins the next blob."""

    index: int
    """As it was expected: 0 is the root of a Get, i + 1 its child i."""
    hash: Hash
    size: int
    """As the provider claims."""


@dataclass(frozen=True, slots=True)
class BlobPairs:
    """Verified hashes of the tree, for an outboard."""

    index: int
    pairs: Sequence[tuple[int, bytes]]
    """(offset in the pre-order outboard, 64 bytes)."""


@dataclass(frozen=True, slots=True)
class BlobData:
    """Verified data."""

    index: int
    offset: int
    """Place in the blob, in bytes."""
    data: bytes


@dataclass(frozen=True, slots=True)
class BlobEnd:
    """All that was asked for of this blob has come."""

    index: int
    hash: Hash
    size: int
    size_proven: bool
    """Whether the last chunk came, which binds the size to the hash."""
    proven: ChunkRanges
    """The chunks that came, within the size."""


@dataclass(frozen=True, slots=True)
class ResponseEnd:
    """All blobs came and the stream ended."""


GetEvent = BlobHeader | BlobPairs | BlobData | BlobEnd | ResponseEnd


class _State(enum.Enum):
    HEADER = "the size of the next blob, or the end"
    BODY = "the rest of a blob"
    DETACHED = "the rest of a blob is read elsewhere"
    ENDED = "the response has ended"


@dataclass(frozen=True, slots=True)
class _Expected:
    index: int
    hash: Hash
    ranges: ChunkRanges
    size_max: int


class GetResponseReader:
    """The getter's end of one get response: wire bytes in, verified events out.

    Say with `expect` which blobs come, as soon as they are known, and with `expect_end` that there
    are no more. `next_event` returns None when it needs more bytes, or to be told what comes.
    """

    def __init__(self) -> None:
        self._expected: deque[_Expected] = deque()
        self._is_end_expected = False
        self._data = b""
        self._offset = 0
        self._eof = False
        self._state = _State.HEADER
        self._events: deque[GetEvent] = deque()
        self._size = 0
        self._decoder: BlobDecoder | None = None
        self._error: Exception | None = None

    def expect(
        self, index: int, hash: Hash, ranges: ChunkRanges, *, size_max: int = BLOB_SIZE_MAX
    ) -> None:
        """The next blob after those told so far; `ranges` are those of the request, not empty.

        Args:
            index: comes back in the events.
            size_max: bytes; the answer is refused when it claims more.

        Raises:
            LocalProtocolError: nothing is asked of the blob, or the end was expected already.
        """
        if not ranges:
            raise LocalProtocolError("a blob of which nothing is asked is not in the answer")
        if self._is_end_expected:
            raise LocalProtocolError("a blob was expected after the end of the answer")
        self._expected.append(_Expected(index, hash, ranges, size_max))

    def expect_end(self) -> None:
        """After the blobs told so far the stream ends."""
        self._is_end_expected = True

    def receive(self, data: bytes) -> None:
        """Take bytes of the answer.

        Raises:
            LocalProtocolError: after the end, or while a blob is read elsewhere.
        """
        if self._eof or self._state is _State.DETACHED:
            raise LocalProtocolError("the answer is not read here, or has ended")
        self._data = self._data[self._offset :] + data if self._unread else data
        self._offset = 0

    def receive_eof(self) -> None:
        """The stream has ended."""
        self._eof = True

    def next_event(self) -> GetEvent | None:
        """The next event; None: feed me more, or tell me what to expect.

        Raises:
            VerificationError: a piece does not match its hash. Drop the peer.
            NotFoundError: the answer ended where a piece was due.
            RemoteProtocolError: an impossible or too large size, an end within an item, or bytes
                after the end. After an error every call raises it again.
        """
        try:
            while not self._events and self._error is None and self._step():
                pass
        except (VerificationError, NotFoundError, RemoteProtocolError) as error:
            self._error = error
        if self._events:
            # What was verified before a bad item is handed on before the error.
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _step(self) -> bool:
        """Go on as far as one event; False if that needs something from the caller."""
        match self._state:
            case _State.HEADER:
                return self._read_header()
            case _State.BODY:
                return self._read_body()
            case _State.DETACHED | _State.ENDED:
                return False

    @property
    def _unread(self) -> int:
        return len(self._data) - self._offset

    def _take(self, size: int) -> bytes:
        """The next bytes, at most `size`; a large buffer of small blobs is copied only once."""
        data = self._data[self._offset : self._offset + size]
        self._offset += len(data)
        return data

    def detach(self) -> bytes:
        """Right after a `BlobHeader`: have the rest of this blob read elsewhere.

        Returns the bytes behind the header that came already; whoever reads the blob takes them
        first, and what they hold beyond its end goes back through `resume_after_blob`.

        Raises:
            LocalProtocolError: a part of the blob was read here.
        """
        if self._state is not _State.BODY or self._decoder is not None or self._events:
            raise LocalProtocolError("only a blob whose header was just read can be read elsewhere")
        self._state = _State.DETACHED
        return self._take(self._unread)

    def resume_after_blob(self, unread: bytes = b"") -> None:
        """The blob that was read elsewhere has ended, and `unread` is what follows it.

        Raises:
            LocalProtocolError: none was.
        """
        if self._state is not _State.DETACHED:
            raise LocalProtocolError("no blob is read elsewhere")
        self._data, self._offset = unread, 0
        self._end_blob()

    def _end_blob(self) -> None:
        self._expected.popleft()
        self._decoder = None
        self._state = _State.HEADER

    def _read_header(self) -> bool:
        if not self._expected:
            return self._is_end_expected and self._read_end()
        expected = self._expected[0]
        name = _name(expected)
        if self._unread < SIZE_HEADER_SIZE:
            if not self._eof:
                return False
            if self._unread:
                raise RemoteProtocolError(f"the answer broke off within the size of {name}")
            raise NotFoundError(
                f"the peer does not hold {name}", hash=expected.hash, index=expected.index
            )
        size = int.from_bytes(self._take(SIZE_HEADER_SIZE), "little")
        if size > min(expected.size_max, BLOB_SIZE_MAX):
            raise RemoteProtocolError(f"{name} is too large: {size} bytes")
        if (size == 0) != (expected.hash == EMPTY_HASH):
            raise RemoteProtocolError(f"{name} cannot have {size} bytes")
        self._size = size
        self._state = _State.BODY
        self._events.append(BlobHeader(expected.index, expected.hash, size))
        return True

    def _read_end(self) -> bool:
        if self._unread:
            raise RemoteProtocolError("the answer goes on after its end")
        if not self._eof:
            return False
        self._state = _State.ENDED
        self._events.append(ResponseEnd())
        return True

    def _read_body(self) -> bool:
        expected = self._expected[0]
        if self._size == 0:
            # One empty chunk, whose hash was compared with the header.
            self._append_end(expected, is_proven=True, proven=ChunkRanges.of(0, 1))
            return True
        if self._decoder is None:
            self._decoder = BlobDecoder(expected.hash, self._size, expected.ranges)
        decoder = self._decoder
        if not self._unread:
            if self._eof:
                self._raise_ended(decoder, expected)
            return False
        try:
            decoder.feed(self._take(decoder.remaining))
        finally:
            if pairs := decoder.take_pairs():
                self._events.append(BlobPairs(expected.index, pairs))
            for offset, data in decoder.take_pieces():
                self._events.append(BlobData(expected.index, offset, data))
        if decoder.is_done:
            self._append_end(expected, is_proven=decoder.size_proven, proven=decoder.proven)
        return True

    def _append_end(self, expected: _Expected, *, is_proven: bool, proven: ChunkRanges) -> None:
        self._events.append(BlobEnd(expected.index, expected.hash, self._size, is_proven, proven))
        self._end_blob()

    def _raise_ended(self, decoder: BlobDecoder, expected: _Expected) -> None:
        try:
            decoder.finish()
        except EncodingEndedError as error:
            name = _name(expected)
            where = "" if error.chunk is None else f"chunk {error.chunk} of "
            if error.is_within_item:
                raise RemoteProtocolError(f"the answer broke off within {where}{name}") from error
            raise NotFoundError(
                f"the peer does not hold {where}{name}",
                hash=expected.hash,
                chunk=error.chunk,
                index=expected.index,
            ) from error


def _name(expected: _Expected) -> str:
    return f"blob {expected.hash} (element {expected.index})"


class GetResponseWriter:
    """The provider's end of one get response: blobs in, wire bytes out.

    Say with `add` what the answer holds, in order, and take bytes with `next_bytes` until there
    are none. When the answer is to end early, stop taking: whole items are handed out, so an end
    after any of them is an end between two items.
    """

    def __init__(self) -> None:
        self._encoders: deque[BlobEncoder] = deque()
        self._error: VerificationError | OSError | None = None

    def add(
        self,
        hash: Hash,
        size: int,
        ranges: ChunkRanges,
        data: bytes | int,
        outboard: bytes | int = b"",
    ) -> None:
        """The next blob of the answer; of one whose ranges are empty nothing is sent.

        Args:
            ranges: those of the request, past the end of the blob or not.
            data: bytes, or a descriptor, which is duplicated.
            outboard: as `data`; pairs in pre-order, none for a blob of one chunk group.

        Raises:
            ValueError: size and the length of bytes given do not fit together.
        """
        if ranges:
            self._encoders.append(BlobEncoder(hash, size, ranges, data, outboard))

    def next_bytes(self, bytes_max: int = 1 << 20) -> bytes:
        """The next whole items, at most `bytes_max` bytes of them; `b""` when all is taken.

        Good items are handed out before the error of a bad one, which every later call raises.

        Raises:
            VerificationError: data or outboard of the next blob do not match its hash.
            OSError: reading failed.
            ValueError: `bytes_max` is less than an item may have.
        """
        if bytes_max < ITEM_SIZE_MAX:
            raise ValueError(f"{bytes_max} bytes have no room for an item of {ITEM_SIZE_MAX}")
        if self._error is not None:
            raise self._error
        parts: list[bytes] = []
        room = bytes_max
        while self._encoders and room >= ITEM_SIZE_MAX:
            try:
                part = self._encoders[0].next(room)
            except (VerificationError, OSError) as error:
                self._error = error
                if not parts:
                    raise
                break
            if part:
                parts.append(part)
                room -= len(part)
            else:
                self._encoders.popleft()
        return b"".join(parts)
