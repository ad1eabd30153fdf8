"""The requests of a getter: one a stream, in full, before anything is answered.

First byte: the kind. Then the body: of a Get, Observe or GetMany it ends with the stream, of a
Push its length is in front and data follows. A body has at most `REQUEST_SIZE_MAX` bytes; what
needs more is split into several requests.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from blobstore.codec.hash import HASH_SIZE, Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.varint import VARINT_SIZE_MAX, encode_varint
from blobsync.errors import LocalProtocolError, RemoteProtocolError
from blobsync.wire.postcard import Reader, Writer
from blobsync.wire.range_spec import ChunkRangesSeq, read_range_spec, write_range_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REQUEST_SIZE_MAX = 1 << 20
"""Bytes of the longest body: what follows the kind, and of a Push its length."""

SPLIT_SIZE_MIN = 128
"""Bytes of the smallest body that any request can be split for."""


class RequestKind(enum.IntEnum):
    """The first byte of a request. 2 to 7 are reserved and refused."""

    GET = 0
    OBSERVE = 1
    PUSH = 8
    GET_MANY = 9


PUSH_KIND = bytes([RequestKind.PUSH])


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Send me these parts of a blob and, if it is a hash seq, of its children."""

    hash: Hash
    ranges: ChunkRangesSeq
    """Element 0 is the root, element i + 1 its child i."""


@dataclass(frozen=True, slots=True)
class ObserveRequest:
    """Tell me what you hold of a blob, now and as it changes."""

    hash: Hash
    ranges: ChunkRanges
    """What the getter cares about; providers may tell more."""


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Take these parts of a blob from me; they follow at once."""

    hash: Hash
    ranges: ChunkRangesSeq
    """As in a Get."""


@dataclass(frozen=True, slots=True)
class GetManyRequest:
    """Send me parts of many blobs."""

    hashes: tuple[Hash, ...]
    """In the order of the answer; one may be there more than once."""
    ranges: ChunkRangesSeq
    """Element i is `hashes[i]`; elements beyond the hashes mean nothing."""

    @classmethod
    def from_blobs(cls, blobs: Iterable[tuple[Hash, ChunkRanges]]) -> GetManyRequest:
        """Ask for these ranges of these blobs, in this order."""
        pairs = tuple(blobs)
        ranges = ChunkRangesSeq.from_elements((i, pair[1]) for i, pair in enumerate(pairs))
        return cls(tuple(hash for hash, _ in pairs), ranges)


Request = GetRequest | ObserveRequest | PushRequest | GetManyRequest


def encode_request(request: Request) -> bytes:
    """The bytes of a request from its kind on.

    Raises:
        LocalProtocolError: the body is longer than `REQUEST_SIZE_MAX`: split it first.
    """
    kind, body = _encode_body(request)
    if len(body) > REQUEST_SIZE_MAX:
        raise LocalProtocolError(f"a request of {len(body)} bytes is too long")
    length = encode_varint(len(body)) if kind is RequestKind.PUSH else b""
    return bytes([kind]) + length + body


def _encode_body(request: Request) -> tuple[RequestKind, bytes]:
    writer = Writer()
    match request:
        case GetRequest(hash, ranges):
            kind = RequestKind.GET
            writer.fixed(hash)
            ranges.write(writer)
        case ObserveRequest(hash, chunks):
            kind = RequestKind.OBSERVE
            writer.fixed(hash)
            write_range_spec(writer, chunks)
        case PushRequest(hash, ranges):
            kind = RequestKind.PUSH
            writer.fixed(hash)
            ranges.write(writer)
        case GetManyRequest(hashes, ranges):
            kind = RequestKind.GET_MANY
            writer.varint(len(hashes))
            writer.fixed(b"".join(hashes))
            ranges.write(writer)
        case _:
            assert_never(request)
    return kind, bytes(writer)


def decode_request(data: bytes) -> Request:
    """The request in `data`, which begins with its kind and ends with its body.

    Raises:
        RemoteProtocolError: empty, of an unknown kind, longer than allowed, not in the one form
            that each value has, or followed by more.
    """
    reader = Reader(data)
    kind = reader.fixed(1)[0]
    if kind == RequestKind.PUSH:
        size = reader.varint()
        if size != reader.remaining:
            raise RemoteProtocolError(f"a push of {size} bytes has {reader.remaining}")
    if reader.remaining > REQUEST_SIZE_MAX:
        raise RemoteProtocolError(f"a request of {reader.remaining} bytes is too long")
    request: Request
    match kind:
        case RequestKind.GET:
            request = GetRequest(_read_hash(reader), ChunkRangesSeq.read(reader))
        case RequestKind.OBSERVE:
            request = ObserveRequest(_read_hash(reader), read_range_spec(reader))
        case RequestKind.PUSH:
            request = PushRequest(_read_hash(reader), ChunkRangesSeq.read(reader))
        case RequestKind.GET_MANY:
            hashes = tuple(_read_hash(reader) for _ in range(reader.count(HASH_SIZE)))
            request = GetManyRequest(hashes, ChunkRangesSeq.read(reader))
        case _:
            raise RemoteProtocolError(f"unknown kind of request: {kind}")
    reader.finish()
    return request


def _read_hash(reader: Reader) -> Hash:
    return Hash(reader.fixed(HASH_SIZE))


def push_header_size(data: bytes) -> int | None:
    """Bytes of the request at the front of a push stream, before its data; None: more needed.

    Raises:
        RemoteProtocolError: not a push, or one longer than allowed.
    """
    if data[:1] not in (b"", PUSH_KIND):
        raise RemoteProtocolError(f"not a push: {data[0]}")
    length = data[1 : 1 + VARINT_SIZE_MAX]
    if len(length) < VARINT_SIZE_MAX and all(byte & 0x80 for byte in length):
        return None
    reader = Reader(length)
    size = reader.varint()
    if size > REQUEST_SIZE_MAX:
        raise RemoteProtocolError(f"a request of {size} bytes is too long")
    header_size = 1 + len(length) - reader.remaining + size
    return header_size if len(data) >= header_size else None


_Run = tuple[int, int | None, ChunkRanges]
"""First element, the one behind the last (None: for ever), and their ranges, not empty."""

_SEQ_OVERHEAD = 2 * VARINT_SIZE_MAX + 1
"""Bytes at most of the count of entries and of the empty entry that ends a sequence."""

_INTERVAL_SIZE_MAX = 2 * VARINT_SIZE_MAX


def split_request(
    request: GetRequest | GetManyRequest, *, size_max: int = REQUEST_SIZE_MAX
) -> Iterator[GetRequest | GetManyRequest]:
    """The request itself if its body is not over `size_max`, else several that are not.

    Together the parts select exactly what the original does, nothing twice, in the same order,
    and hashes of a GetMany that select nothing are left out. Only an element whose own range spec
    is over the limit (some 50,000 intervals) appears in several parts, with other ranges in each;
    elements that share such a spec come round again with each part of it.

    Raises:
        ValueError: `size_max` is below `SPLIT_SIZE_MIN`.
    """
    if size_max < SPLIT_SIZE_MIN:
        raise ValueError(f"a request cannot be split into {size_max} bytes")
    _, body = _encode_body(request)
    if len(body) <= size_max:
        yield request
    elif isinstance(request, GetRequest):
        for seq in _split_seq(request.ranges, size_max - HASH_SIZE):
            yield GetRequest(request.hash, seq)
    else:
        yield from _split_get_many(request, size_max)


def _split_seq(seq: ChunkRangesSeq, size_max: int) -> Iterator[ChunkRangesSeq]:
    budget = size_max - _SEQ_OVERHEAD
    part: list[_Run] = []
    used = 0
    for run in _runs(seq, budget - VARINT_SIZE_MAX):
        cost = _run_size(run, part[-1] if part else None)
        if cost is None or used + cost > budget:
            yield _join(part)
            part.clear()
            used = 0
            cost = _run_size(run, None) or 0
        part.append(run)
        used += cost
    yield _join(part)


def _runs(seq: ChunkRangesSeq, spec_size_max: int) -> Iterator[_Run]:
    """The runs that are not empty, those with a larger spec cut into several of the same place."""
    runs = seq.runs
    for position, (start, ranges) in enumerate(runs):
        end = runs[position + 1][0] if position + 1 < len(runs) else None
        for piece in _split_ranges(ranges, spec_size_max):
            yield start, end, piece


def _split_ranges(ranges: ChunkRanges, spec_size_max: int) -> Iterator[ChunkRanges]:
    if not ranges:
        return
    if _spec_size(ranges) <= spec_size_max:
        yield ranges
        return
    step = 2 * max(1, (spec_size_max - VARINT_SIZE_MAX) // _INTERVAL_SIZE_MAX)
    for at in range(0, len(ranges.boundaries), step):
        yield ChunkRanges(ranges.boundaries[at : at + step])


def _spec_size(ranges: ChunkRanges) -> int:
    if ranges.is_all:
        return 2
    writer = Writer()
    write_range_spec(writer, ranges)
    return len(writer)


def _run_size(run: _Run, previous: _Run | None) -> int | None:
    """Bytes that a run adds to a sequence, None if it cannot follow `previous` there."""
    start, _, ranges = run
    if previous is None:
        return len(encode_varint(start)) + _spec_size(ranges)
    previous_start, previous_end, _ = previous
    if previous_end is None or start < previous_end:
        return None
    size = len(encode_varint(start - previous_start)) + _spec_size(ranges)
    # A gap needs an empty entry of its own.
    return size if start == previous_end else size + VARINT_SIZE_MAX + 1


def _join(part: list[_Run]) -> ChunkRangesSeq:
    runs: list[tuple[int, ChunkRanges]] = []
    for start, end, ranges in part:
        if runs and runs[-1][0] == start:
            runs.pop()
        runs.append((start, ranges))
        if end is not None:
            runs.append((end, ChunkRanges.empty()))
    return ChunkRangesSeq.from_runs(runs)


def _split_get_many(request: GetManyRequest, size_max: int) -> Iterator[GetManyRequest]:
    budget = size_max - _SEQ_OVERHEAD - VARINT_SIZE_MAX
    entry_size_max = HASH_SIZE + VARINT_SIZE_MAX
    part: list[tuple[Hash, ChunkRanges]] = []
    used = 0
    for index, hash in enumerate(request.hashes):
        for ranges in _split_ranges(request.ranges.ranges_at(index), budget - entry_size_max):
            cost = HASH_SIZE
            if not part or part[-1][1] != ranges:
                cost = entry_size_max + _spec_size(ranges)
            if used + cost > budget:
                yield GetManyRequest.from_blobs(part)
                part.clear()
                used = 0
                cost = entry_size_max + _spec_size(ranges)
            part.append((hash, ranges))
            used += cost
    yield GetManyRequest.from_blobs(part)
