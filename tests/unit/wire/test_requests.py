"""Requests against the Rust peer, their limits, and how they are split."""

import json
from pathlib import Path

import pytest

from blobstore.codec.hash import Hash
from blobstore.codec.ranges import ChunkRanges
from blobsync.errors import LocalProtocolError, RemoteProtocolError
from blobsync.wire.range_spec import ChunkRangesSeq
from blobsync.wire.requests import (
    REQUEST_SIZE_MAX,
    SPLIT_SIZE_MIN,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    decode_request,
    encode_request,
    push_header_size,
    split_request,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/requests.json").read_text())
TRANSCRIPTS = json.loads((Path(__file__).parents[2] / "vectors/transcripts.json").read_text())
KINDS = {
    "get": GetRequest,
    "observe": ObserveRequest,
    "push": PushRequest,
    "get_many": GetManyRequest,
}
HASH = Hash(b"\xda" * 32)
ALL = ChunkRanges.all()
EMPTY = ChunkRanges.empty()


def many_runs(count: int, *, width: int = 2) -> ChunkRangesSeq:
    """A sequence whose encoding is long: every element has other ranges, of `width` boundaries."""
    return ChunkRangesSeq.from_elements(
        (i, ChunkRanges(range(i, i + 200 * width, 200))) for i in range(count)
    )


@pytest.mark.parametrize("case", VECTORS["requests"], ids=lambda case: case["name"])
def test_bytes_of_the_rust_peer(case):
    data = bytes.fromhex(case["stream_bytes"])
    request = decode_request(data)
    assert isinstance(request, KINDS[case["kind"]])
    assert encode_request(request) == data
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            decode_request(data[:size])
    with pytest.raises(RemoteProtocolError):
        decode_request(data + b"\x00")


def test_the_values_of_some():
    by_name = {
        case["name"]: decode_request(bytes.fromhex(case["stream_bytes"]))
        for case in VECTORS["requests"]
    }
    assert by_name["get blob"] == GetRequest(HASH, ChunkRangesSeq.blob())
    assert by_name["get hash seq and child sizes"] == GetRequest(HASH, ChunkRangesSeq.child_sizes())
    assert by_name["observe"] == ObserveRequest(HASH, ALL)
    assert by_name["push hash seq header"] == PushRequest(HASH, ChunkRangesSeq.all())
    assert by_name["get_many none"] == GetManyRequest.from_blobs([])
    duplicates = by_name["get_many duplicate hashes"]
    assert isinstance(duplicates, GetManyRequest)
    assert len(duplicates.hashes) == 2
    assert len(set(duplicates.hashes)) == 1


@pytest.mark.parametrize(
    "wire", [*VECTORS["reserved_slots_wire"], VECTORS["upstream_quirk_empty_get_many"]["wire"]]
)
def test_refused(wire: str):
    with pytest.raises(RemoteProtocolError):
        decode_request(bytes.fromhex(wire))


@pytest.mark.parametrize(
    "name",
    [
        "malformed: reserved slot 2",
        "malformed: type 10",
        "malformed: type 0xff",
        "malformed: empty stream",
        "malformed: get truncated",
        "non canonical seq (repeated spec)",
        "request body of 1 MiB + 1",
        # A value with other bytes behind it is not ours to guess at.
        "get with trailing garbage",
        "request body of exactly 1 MiB (padded)",
    ],
)
def test_refused_transcripts(name: str):
    (case,) = (case for case in TRANSCRIPTS["cases"] if case["name"] == name)
    with pytest.raises(RemoteProtocolError):
        decode_request(request_bytes(case))


def request_bytes(case) -> bytes:
    head, *rule = case["request"].split(" then zeroes up to ")
    data = bytes.fromhex(head)
    return data.ljust(int(rule[0].split()[0]), b"\0") if rule else data


def test_the_limit_counts_the_body():
    """A body of exactly the limit passes, one more byte is refused, by us and on the way out."""
    # A count of three bytes, then differences of one byte each make up any length.
    count = REQUEST_SIZE_MAX - 32 - 3
    for extra, passes in ((0, True), (1, False)):
        ranges = ChunkRanges(range(1, count + 1 + extra))
        request = ObserveRequest(HASH, ranges)
        if passes:
            data = encode_request(request)
            assert len(data) == 1 + REQUEST_SIZE_MAX
            assert decode_request(data) == request
        else:
            with pytest.raises(LocalProtocolError, match="too long"):
                encode_request(request)
            with pytest.raises(RemoteProtocolError, match="too long"):
                decode_request(b"\x01" + bytes(REQUEST_SIZE_MAX + 1))


def test_push_header_of_a_whole_stream():
    case = VECTORS["push_complete_stream"]
    stream = bytes.fromhex(case["stream"])
    for size in range(len(stream)):
        due = case["header_len"] if size >= case["header_len"] else None
        assert push_header_size(stream[:size]) == due
    request = decode_request(stream[: case["header_len"]])
    assert request == PushRequest(Hash.from_text(case["hash"]), ChunkRangesSeq.blob())


@pytest.mark.parametrize("wire", ["00", "08ffffffffffffffffff02", "08818040"])
def test_push_header_refused(wire: str):
    with pytest.raises(RemoteProtocolError):
        push_header_size(bytes.fromhex(wire))


def test_a_push_says_its_length():
    data = encode_request(PushRequest(HASH, ChunkRangesSeq.blob()))
    for wrong in (data[1] - 1, data[1] + 1):
        with pytest.raises(RemoteProtocolError, match="push of"):
            decode_request(data[:1] + bytes([wrong]) + data[2:])


def test_what_fits_is_not_split():
    for request in (
        GetRequest(HASH, ChunkRangesSeq.all()),
        GetManyRequest.from_blobs([(HASH, ALL), (HASH, EMPTY)]),
    ):
        assert list(split_request(request)) == [request]


def test_split_below_the_smallest_limit():
    with pytest.raises(ValueError, match="cannot be split"):
        list(split_request(GetRequest(HASH, many_runs(500)), size_max=SPLIT_SIZE_MIN - 1))


@pytest.mark.parametrize("size_max", [SPLIT_SIZE_MIN, 1000, REQUEST_SIZE_MAX])
def test_split_get(size_max: int):
    is_large = size_max == REQUEST_SIZE_MAX
    request = GetRequest(HASH, many_runs(4000, width=200) if is_large else many_runs(500))
    parts = list(split_request(request, size_max=size_max))
    assert len(parts) > 1
    elements = []
    for part in parts:
        assert isinstance(part, GetRequest)
        assert part.hash == HASH
        assert len(encode_request(part)) <= 1 + size_max
        assert decode_request(encode_request(part)) == part
        elements += part.ranges.elements()
    assert elements == list(request.ranges.elements())


def test_split_get_with_an_infinite_end():
    runs = [*many_runs(400).runs[:-1], (400, ALL)]
    request = GetRequest(HASH, ChunkRangesSeq(runs))
    *finite, last = split_request(request, size_max=200)
    assert isinstance(last, GetRequest)
    assert last.ranges.is_infinite
    elements = []
    for part in finite:
        assert isinstance(part, GetRequest)
        assert not part.ranges.is_infinite
        elements += part.ranges.elements()
    start = elements[-1][0] + 1
    assert elements == list(request.ranges.up_to(start).elements())
    for index in range(start, 500):
        assert last.ranges.ranges_at(index) == request.ranges.ranges_at(index)
    assert last.ranges.up_to(start) == ChunkRangesSeq.empty()


def test_split_of_one_large_range_spec():
    """Its intervals are shared out, for each element that has it, also for ever."""
    ranges = ChunkRanges(range(1, 400))
    for seq in (ChunkRangesSeq.blob(ranges), ChunkRangesSeq([(3, ranges)])):
        selected = EMPTY
        for part in split_request(GetRequest(HASH, seq), size_max=150):
            assert isinstance(part, GetRequest)
            assert len(encode_request(part)) <= 151
            start = seq.runs[0][0]
            assert part.ranges.is_infinite == seq.is_infinite
            assert part.ranges.end == seq.end
            assert not selected & part.ranges.ranges_at(start)
            selected |= part.ranges.ranges_at(start)
        assert selected == ranges


@pytest.mark.parametrize("size_max", [SPLIT_SIZE_MIN, 1000])
def test_split_get_many(size_max: int):
    blobs = [
        (Hash(bytes([i % 256, i // 256]) * 16), ALL if i % 3 else ChunkRanges.of(i, i + 5))
        for i in range(300)
    ]
    blobs[7] = (blobs[7][0], EMPTY)
    blobs[8] = blobs[9]
    request = GetManyRequest.from_blobs(blobs)
    parts = list(split_request(request, size_max=size_max))
    seen = []
    for part in parts:
        assert isinstance(part, GetManyRequest)
        assert len(encode_request(part)) <= 1 + size_max
        seen += [(part.hashes[index], ranges) for index, ranges in part.ranges.elements()]
    assert seen == [blob for blob in blobs if blob[1]]


def test_split_get_many_of_two_million_bytes():
    hashes = tuple(Hash(i.to_bytes(32, "big")) for i in range(65_000))
    request = GetManyRequest(hashes, ChunkRangesSeq.all())
    parts = list(split_request(request))
    assert len(parts) == 2
    seen = []
    for part in parts:
        assert isinstance(part, GetManyRequest)
        assert len(encode_request(part)) <= 1 + REQUEST_SIZE_MAX
        seen += part.hashes
    assert tuple(seen) == hashes


def test_split_get_many_of_one_large_range_spec():
    ranges = ChunkRanges(range(1, 400))
    selected = EMPTY
    for part in split_request(GetManyRequest.from_blobs([(HASH, ranges)]), size_max=150):
        assert isinstance(part, GetManyRequest)
        assert len(encode_request(part)) <= 151
        for index, piece in part.ranges.elements():
            assert part.hashes[index] == HASH
            assert not selected & piece
            selected |= piece
    assert selected == ranges
