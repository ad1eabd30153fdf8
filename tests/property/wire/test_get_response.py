"""Both ends of a get response, over any blobs, ranges and cuts of the stream."""

from hypothesis import given, settings
from hypothesis import strategies as st

from blobstore.codec.bao import outboard
from blobstore.codec.hash import Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.errors import VerificationError
from blobsync.errors import NotFoundError, RemoteProtocolError
from blobsync.wire.get_response import (
    BlobData,
    BlobEnd,
    BlobPairs,
    GetResponseReader,
    GetResponseWriter,
    ResponseEnd,
)

sizes = st.sampled_from([0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 40_000, 65_537])
not_empty_ranges = st.lists(st.integers(0, 70), unique=True, min_size=1, max_size=6).map(
    lambda boundaries: ChunkRanges(sorted(boundaries))
)
blobs = st.lists(st.tuples(sizes, not_empty_ranges), min_size=1, max_size=4)


def content_of(index: int, size: int) -> bytes:
    return (bytes([index + 1, 7, index]) * (size // 3 + 1))[:size]


def answer_of(selected: list[tuple[int, ChunkRanges]]) -> tuple[list[Hash], bytes]:
    writer = GetResponseWriter()
    hashes: list[Hash] = []
    for index, (size, ranges) in enumerate(selected):
        data = content_of(index, size)
        hash, pairs = outboard(data)
        hashes.append(hash)
        writer.add(hash, size, ranges, data, pairs)
    parts: list[bytes] = []
    while part := writer.next_bytes():
        parts.append(part)
    return hashes, b"".join(parts)


def reader_of(hashes: list[Hash], selected: list[tuple[int, ChunkRanges]]) -> GetResponseReader:
    reader = GetResponseReader()
    for index, (hash, (_, ranges)) in enumerate(zip(hashes, selected, strict=True)):
        reader.expect(index, hash, ranges)
    reader.expect_end()
    return reader


@settings(deadline=None)
@given(blobs, st.lists(st.integers(1, 20_000), max_size=6))
def test_what_is_written_is_read(selected: list[tuple[int, ChunkRanges]], cuts: list[int]):
    hashes, answer = answer_of(selected)
    reader = reader_of(hashes, selected)
    got = [bytearray(size) for size, _ in selected]
    outboards = [bytearray(len(outboard(content_of(i, s))[1])) for i, (s, _) in enumerate(selected)]
    ends = 0
    event = None
    for cut in [*cuts, len(answer) + 1]:
        reader.receive(answer[:cut])
        answer = answer[cut:]
        if not answer:
            reader.receive_eof()
        while (event := reader.next_event()) is not None:
            match event:
                case BlobData(index, offset, data):
                    got[index][offset : offset + len(data)] = data
                case BlobPairs(index, pairs):
                    for offset, pair in pairs:
                        outboards[index][offset : offset + 64] = pair
                case BlobEnd(index, hash, size, _, proven):
                    assert (index, hash, size) == (ends, hashes[ends], selected[ends][0])
                    assert proven == selected[index][1].truncate(size)
                    ends += 1
                case _:
                    pass
        if not answer:
            break
    assert ends == len(selected)
    for index, (size, ranges) in enumerate(selected):
        due = content_of(index, size)
        for start, end in ranges.truncate(size).intervals():
            assert end is not None
            assert got[index][start * 1024 : end * 1024] == due[start * 1024 : end * 1024]
        if ranges.is_all:
            assert outboards[index] == outboard(due)[1]


@settings(deadline=None)
@given(blobs, st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_no_wrong_byte_is_handed_on(
    selected: list[tuple[int, ChunkRanges]], position: int, change: int, is_cut: bool
):
    """A byte changed, or the stream cut, anywhere: an error, or a size that is not proven."""
    hashes, answer = answer_of(selected)
    position %= len(answer)
    bad = bytearray(answer)
    if is_cut:
        del bad[position:]
    else:
        bad[position] ^= change
    reader = reader_of(hashes, selected)
    reader.receive(bytes(bad))
    reader.receive_eof()
    unproven = 0
    try:
        while (event := reader.next_event()) is not None:
            match event:
                case BlobData(index, offset, data):
                    due = content_of(index, selected[index][0])
                    assert due[offset : offset + len(data)] == data
                case BlobEnd(index, _, size, size_proven, _):
                    if size != selected[index][0]:
                        assert not size_proven
                        unproven += 1
                case ResponseEnd():
                    assert unproven == 1
                case _:
                    pass
    except (VerificationError, RemoteProtocolError, NotFoundError):
        return
    assert unproven == 1


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 50)), not_empty_ranges)
def test_any_bytes_are_refused(data: bytes, cuts: list[int], ranges: ChunkRanges):
    reader = reader_of([Hash(b"\1" * 32)], [(0, ranges)])
    try:
        for cut in cuts:
            reader.receive(data[:cut])
            data = data[cut:]
            while reader.next_event() is not None:
                pass
        reader.receive(data)
        reader.receive_eof()
        while (event := reader.next_event()) is not None:
            assert not isinstance(event, BlobData | BlobEnd | ResponseEnd)
    except (VerificationError, RemoteProtocolError, NotFoundError):
        return
    raise AssertionError("bytes without meaning were taken as an answer")
