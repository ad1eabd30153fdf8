"""What a provider tells an observer: the state of a blob, then each change of it.

The answer to an Observe is frames of `varint length, body`; the body is `size, count, boundaries`,
all varints, the boundaries absolute (unlike those of a request). The first frame is the state, each
further one the chunks that flipped and the size as known by then. The provider never ends the
stream; the observer stops it.
"""

from __future__ import annotations

from dataclasses import dataclass

from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import BLOB_SIZE_MAX, chunk_count
from blobstore.codec.varint import VARINT_SIZE_MAX, encode_varint
from blobsync.errors import RemoteProtocolError
from blobsync.wire.postcard import Reader, Writer

OBSERVE_FRAME_SIZE_MAX = 1 << 20
"""Bytes of the longest body of a frame."""

_NO_CHUNKS = ChunkRanges.empty()


@dataclass(frozen=True, slots=True)
class Observation:
    """What a provider holds of a blob, or how that changed.

    Chunks are written as `ChunkRanges.open_at_end` does: a complete blob is all, and a set that
    holds the last chunk is open at its end.
    """

    size: int = 0
    """Bytes, as far as known; 0 with no chunks is a blob that the provider knows nothing of."""
    ranges: ChunkRanges = _NO_CHUNKS

    @property
    def is_complete(self) -> bool:
        """Whether the provider says it holds all."""
        return self.ranges.is_all

    @property
    def is_size_proven(self) -> bool:
        """Whether the last chunk is there, which binds the size to the hash."""
        return chunk_count(self.size) - 1 in self.ranges

    def updated(self, change: Observation) -> Observation:
        """The state after a change: what there is only grows, so the union.

        The size that comes with the chunks further out is the better one.
        """
        size = change.size if _reach(change.ranges) > _reach(self.ranges) else self.size
        return Observation(size, self.ranges | change.ranges)

    def change_to(self, later: Observation) -> Observation:
        """What to send when this state has become `later`."""
        return Observation(later.size, self.ranges ^ later.ranges)


def _reach(ranges: ChunkRanges) -> tuple[bool, int]:
    """Orders range sets by their upper end; an open one is beyond all others."""
    return ranges.is_open, 0 if ranges.is_open or not ranges else ranges.boundaries[-1]


def encode_observation(observation: Observation) -> bytes:
    """One frame."""
    writer = Writer()
    writer.varint(observation.size)
    writer.varint(len(observation.ranges.boundaries))
    for boundary in observation.ranges.boundaries:
        writer.varint(boundary)
    return encode_varint(len(writer)) + bytes(writer)


class ObservationReader:
    """The observer's end of an answer: bytes in, observations out."""

    def __init__(self) -> None:
        self._data = b""
        self._eof = False

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self._data += data

    def receive_eof(self) -> None:
        """The stream has ended."""
        self._eof = True

    def next_observation(self) -> Observation | None:
        """The next frame; None: feed me more, or the stream ended between two frames.

        Raises:
            RemoteProtocolError: not a frame, too long a one, or the stream ended within it.
        """
        length = self._data[:VARINT_SIZE_MAX]
        if len(length) == VARINT_SIZE_MAX or any(byte < 0x80 for byte in length):
            reader = Reader(length)
            size = reader.varint()
            if size > OBSERVE_FRAME_SIZE_MAX:
                raise RemoteProtocolError(f"an observe frame of {size} bytes is too long")
            start = len(length) - reader.remaining
            if len(self._data) >= start + size:
                body = self._data[start : start + size]
                self._data = self._data[start + size :]
                return _decode_body(body)
        if self._eof and self._data:
            raise RemoteProtocolError("an answer to observe ended within a frame")
        return None


def _decode_body(body: bytes) -> Observation:
    reader = Reader(body)
    size = reader.varint()
    if size > BLOB_SIZE_MAX:
        raise RemoteProtocolError(f"a blob cannot have {size} bytes")
    boundaries = [reader.varint() for _ in range(reader.count(1))]
    reader.finish()
    try:
        ranges = ChunkRanges(boundaries)
    except ValueError:
        raise RemoteProtocolError("the boundaries of an observe frame do not increase") from None
    return Observation(size, ranges)
