"""Both ends of a get response against what the Rust provider sent."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import blake3
import pytest

from blobstore.codec.bao import hash_bytes, outboard
from blobstore.codec.hash import EMPTY_HASH, Hash
from blobstore.codec.hashseq import HashSeq
from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import chunk_count
from blobstore.errors import VerificationError
from blobsync.errors import LocalProtocolError, NotFoundError, RemoteProtocolError
from blobsync.wire.get_response import (
    BlobData,
    BlobEnd,
    BlobHeader,
    BlobPairs,
    GetEvent,
    GetResponseReader,
    GetResponseWriter,
    ResponseEnd,
)
from blobsync.wire.requests import (
    GetManyRequest,
    GetRequest,
    PushRequest,
    decode_request,
    encode_request,
    push_header_size,
)

VECTORS = Path(__file__).parents[2] / "vectors"
TRANSCRIPTS = json.loads((VECTORS / "transcripts.json").read_text())
ANSWERED = [
    case
    for case in TRANSCRIPTS["cases"]
    if case["provider_result"] in ("ok", "encode error", "Invalid hash sequence")
    and case["request"][:2] in ("00", "09")
    and not case["name"].startswith(("get with trailing", "request body"))
]
ENCODINGS = [
    (blob["root"], case)
    for blob in json.loads((VECTORS / "encodings.json").read_text())["blobs"]
    for case in blob["cases"]
]
ALL = ChunkRanges.all()
Selected = tuple[int, Hash, ChunkRanges]


def ranges_of(intervals) -> ChunkRanges:
    return ChunkRanges.union_of((start, end) for start, end in intervals)


def selected_by(request: GetRequest | GetManyRequest, world: Mapping) -> Iterator[Selected]:
    """The blobs of the answer, in order, whether the provider has them or not."""
    if isinstance(request, GetManyRequest):
        for index, ranges in islice(request.ranges.elements(), len(request.hashes)):
            yield index, request.hashes[index], ranges
        return
    for index, ranges in request.ranges.elements():
        if index == 0:
            yield index, request.hash, ranges
            continue
        if request.hash not in world or len(world[request.hash].data) % 32:
            return
        children = HashSeq.from_bytes(world[request.hash].data)
        if index > len(children):
            return
        yield index, children[index - 1], ranges


def read_all(
    reader: GetResponseReader, data: bytes, step: int, selected: list[Selected]
) -> Iterator[GetEvent]:
    """Feed an answer in pieces of `step` bytes; blobs are expected one after the other."""
    waiting = list(selected)
    offset = 0
    while True:
        event = reader.next_event()
        if event is not None:
            yield event
            if isinstance(event, ResponseEnd):
                return
        elif isinstance(event, BlobEnd) or waiting:
            reader.expect(*waiting.pop(0))
            if not waiting:
                reader.expect_end()
        elif offset < len(data):
            reader.receive(data[offset : offset + step])
            offset += step
        else:
            return


def write_answer(selected: list[Selected], world: Mapping) -> tuple[bytes, bool]:
    """What our writer sends, and whether it came to the end."""
    writer = GetResponseWriter()
    for _, hash, ranges in selected:
        if hash not in world:
            return take(writer)[0], False
        blob = world[hash]
        writer.add(hash, len(blob.data), ranges, blob.held, blob.outboard)
    return take(writer)


def take(writer: GetResponseWriter) -> tuple[bytes, bool]:
    answer = b""
    try:
        while part := writer.next_bytes():
            answer += part
    except VerificationError:
        return answer, False
    return answer, True


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case["name"])
def test_writer_sends_what_the_rust_peer_sends(case, world):
    request = decode_request(bytes.fromhex(case["request"]))
    assert isinstance(request, GetRequest | GetManyRequest)
    answer, is_whole = write_answer(list(selected_by(request, world)), world)
    assert len(answer) == case["response_len"]
    assert blake3.blake3(answer).hexdigest() == case["response_blake3"]
    assert case["response"] in (None, answer.hex())
    if case["provider_result"] != "Invalid hash sequence":
        has_root = not isinstance(request, GetRequest) or request.hash in world
        assert (is_whole and has_root) == (case["stream_end"] == "fin")


@pytest.mark.parametrize("step", [1 << 20, 16384, 7, 1])
@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case["name"])
def test_reader_reads_what_the_rust_peer_sends(case, step: int, world):
    request = decode_request(bytes.fromhex(case["request"]))
    assert isinstance(request, GetRequest | GetManyRequest)
    selected = list(selected_by(request, world))
    answer, _ = write_answer(selected, world)
    assert blake3.blake3(answer).hexdigest() == case["response_blake3"]
    reader = GetResponseReader()
    if not selected:
        reader.expect_end()
    events = list(read_all(reader, answer, step, selected))
    ends = check_events(events, selected, world)
    if case["segments"] is not None:
        sizes = [(end.index, end.hash.hex(), end.size) for end in ends]
        assert sizes == [(s["offset"], s["hash"], s["size"]) for s in case["segments"]]
    reader.receive_eof()
    if len(ends) == len(selected):
        assert reader.next_event() == ResponseEnd()
        assert reader.next_event() is None
        return
    # Each of these ends where an item was due: the provider lacks it.
    with pytest.raises(NotFoundError) as caught:
        reader.next_event()
    index, hash, _ = selected[len(ends)]
    assert (caught.value.index, caught.value.hash) == (index, hash)
    with pytest.raises(NotFoundError):
        reader.next_event()


def check_events(events: list[GetEvent], selected: list[Selected], world: Mapping) -> list[BlobEnd]:
    """Every byte is right and at its place, and each blob that ended is all there."""
    by_index = {index: (hash, ranges) for index, hash, ranges in selected}
    received: dict[int, int] = {}
    ends: list[BlobEnd] = []
    open_index = None
    for event in events:
        match event:
            case BlobHeader(index, hash, size):
                assert open_index is None
                open_index = index
                assert hash == by_index[index][0]
                assert size == len(world[hash].data)
            case BlobPairs(index, pairs):
                assert index == open_index
                stored = world[by_index[index][0]].outboard
                for offset, pair in pairs:
                    assert stored[offset : offset + 64] == pair
            case BlobData(index, offset, data):
                assert index == open_index
                blob = world[by_index[index][0]]
                assert blob.data[offset : offset + len(data)] == data
                received[index] = received.get(index, 0) + len(data)
            case BlobEnd(index, hash, size, size_proven, proven):
                assert index == open_index
                open_index = None
                due = by_index[index][1].truncate(size)
                assert proven == due
                assert received.get(index, 0) == due.bytes_within(size)
                assert size_proven == (chunk_count(size) - 1 in due)
                ends.append(event)
            case ResponseEnd():
                assert open_index is None
    return ends


@pytest.mark.parametrize(
    "case",
    [case for case in TRANSCRIPTS["cases"] if case["name"].startswith("push")],
    ids=lambda case: case["name"],
)
def test_a_push_is_its_request_and_then_an_answer(case, world):
    start = bytes.fromhex(case["request"])
    request = decode_request(start[: push_header_size(start)])
    assert isinstance(request, PushRequest)
    selected = list(selected_by(GetRequest(request.hash, request.ranges), world))
    answer, is_whole = write_answer(selected, world)
    assert is_whole
    stream = encode_request(request) + answer
    assert stream.startswith(start)
    if "request_len" in case:
        assert len(stream) == case["request_len"]
        assert blake3.blake3(stream).hexdigest() == case["request_blake3"]


def read_one(
    data: bytes, hash: Hash, ranges: ChunkRanges, *, size_max: int = 1 << 30
) -> list[GetEvent]:
    """Read an answer of one blob, to its end."""
    reader = GetResponseReader()
    reader.expect(0, hash, ranges, size_max=size_max)
    reader.expect_end()
    reader.receive(data)
    reader.receive_eof()
    events: list[GetEvent] = []
    while (event := reader.next_event()) is not None:
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("root", "case"),
    [(root, case) for root, case in ENCODINGS if case.get("hex") and case["ranges"]],
    ids=lambda value: value[:10] if isinstance(value, str) else value["name"],
)
def test_an_end_at_every_position(root: str, case):
    """Between two items the piece was not found, within one something broke."""
    data = bytes.fromhex(case["hex"])
    ranges = ranges_of(case["ranges"])
    hash = Hash.from_text(root)
    events = read_one(data, hash, ranges)
    assert events[-1] == ResponseEnd()
    boundaries = {0, 8}
    position = 8
    for item in case["items"]:
        position += 64 if "parent" in item else item["len"]
        boundaries.add(position)
    assert position == len(data)
    for cut in range(len(data)):
        due = NotFoundError if cut in boundaries else RemoteProtocolError
        with pytest.raises(due) as caught:
            read_one(data[:cut], hash, ranges)
        if isinstance(caught.value, NotFoundError):
            assert (caught.value.index, caught.value.hash) == (0, hash)
            assert (caught.value.chunk is None) == (cut == 0)


@pytest.mark.parametrize("size", [1, 1024, 1025, 16384, 16385, 65537])
@pytest.mark.parametrize(
    "ranges", [ALL, ChunkRanges.last(), ChunkRanges.of(0, 1), ChunkRanges((0, 1, 20, 21))], ids=repr
)
def test_every_flipped_byte_is_refused(size: int, ranges: ChunkRanges):
    content = bytes((i * 7 + i // 255) % 256 for i in range(size))
    hash, pairs = outboard(content)
    writer = GetResponseWriter()
    writer.add(hash, size, ranges, content, pairs)
    answer, is_whole = take(writer)
    assert is_whole
    positions = list(range(min(len(answer), 300))) + list(range(300, len(answer), 97))
    for position in [*positions, len(answer) - 1]:
        bad = bytearray(answer)
        bad[position] ^= 1 << (position % 8)
        try:
            events = read_one(bytes(bad), hash, ranges)
        except (VerificationError, RemoteProtocolError, NotFoundError):
            continue
        # The size is a claim as long as the last chunk was not asked for.
        assert position < 8
        (end,) = (event for event in events if isinstance(event, BlobEnd))
        assert not end.size_proven
        assert chunk_count(size) - 1 not in end.proven
        for event in events:
            if isinstance(event, BlobData):
                assert content[event.offset : event.offset + len(event.data)] == event.data


def test_good_data_before_a_bad_item_is_handed_on():
    content = bytes(40_000)
    hash, pairs = outboard(content)
    writer = GetResponseWriter()
    writer.add(hash, len(content), ALL, content, pairs)
    answer = bytearray(take(writer)[0])
    answer[-1] ^= 1
    reader = GetResponseReader()
    reader.expect(5, hash, ALL)
    reader.receive(bytes(answer))
    events: list[GetEvent] = []
    with pytest.raises(VerificationError) as caught:
        while (event := reader.next_event()) is not None:
            events.append(event)
    assert (caught.value.hash, caught.value.chunk) == (hash, 32)
    got = [(event.offset, len(event.data)) for event in events if isinstance(event, BlobData)]
    assert sum(length for _, length in got) == 32768
    with pytest.raises(VerificationError):
        reader.next_event()


@pytest.mark.parametrize("step", [1 << 20, 1])
def test_bytes_after_the_end_are_refused(step: int):
    content = b"hello"
    reader = GetResponseReader()
    answer = (5).to_bytes(8, "little") + content + b"!"
    with pytest.raises(RemoteProtocolError, match="after its end"):
        list(read_all(reader, answer, step, [(0, hash_bytes(content), ALL)]))


@pytest.mark.parametrize(
    ("hash", "size", "size_max", "reason"),
    [
        (hash_bytes(b"x"), 0, 100, "cannot have 0 bytes"),
        (EMPTY_HASH, 1, 100, "cannot have 1 bytes"),
        (hash_bytes(b"x"), 101, 100, "too large"),
        (hash_bytes(b"x"), 2**63, 2**64, "too large"),
        (hash_bytes(b"x"), 2**64 - 1, 2**64, "too large"),
    ],
)
def test_impossible_sizes(hash: Hash, size: int, size_max: int, reason: str):
    with pytest.raises(RemoteProtocolError, match=reason):
        read_one(size.to_bytes(8, "little") + b"x", hash, ALL, size_max=size_max)


def test_the_largest_size_is_taken_as_a_claim():
    with pytest.raises(NotFoundError, match="chunk 0"):
        read_one((2**63 - 1).to_bytes(8, "little"), hash_bytes(b"x"), ALL, size_max=2**64)


def test_the_empty_blob():
    events = read_one(bytes(8), EMPTY_HASH, ChunkRanges.last())
    assert events == [
        BlobHeader(0, EMPTY_HASH, 0),
        BlobEnd(0, EMPTY_HASH, 0, True, ChunkRanges.of(0, 1)),
        ResponseEnd(),
    ]


def test_an_empty_answer():
    reader = GetResponseReader()
    assert reader.next_event() is None
    reader.expect_end()
    assert reader.next_event() is None
    reader.receive_eof()
    assert reader.next_event() == ResponseEnd()
    assert reader.next_event() is None


def test_children_become_known_with_the_root():
    """The reader waits with bytes in hand until it is told what they are."""
    children = [b"first", b"second"]
    root = bytes(HashSeq(hash_bytes(child) for child in children))
    answer = b"".join(len(blob).to_bytes(8, "little") + blob for blob in (root, *children))
    reader = GetResponseReader()
    reader.receive(answer)
    reader.receive_eof()
    assert reader.next_event() is None
    reader.expect(0, hash_bytes(root), ALL)
    assert isinstance(reader.next_event(), BlobHeader)
    data = reader.next_event()
    assert isinstance(data, BlobData)
    assert isinstance(reader.next_event(), BlobEnd)
    assert reader.next_event() is None
    for index, hash in enumerate(HashSeq.from_bytes(data.data)):
        reader.expect(index + 1, hash, ALL)
    reader.expect_end()
    for index, child in enumerate(children):
        assert reader.next_event() == BlobHeader(index + 1, hash_bytes(child), len(child))
        assert reader.next_event() == BlobData(index + 1, 0, child)
        assert isinstance(reader.next_event(), BlobEnd)
    assert reader.next_event() == ResponseEnd()


@pytest.mark.parametrize("buffered", [8, 10, 13, 20, 26])
def test_a_blob_that_is_read_elsewhere(buffered: int):
    """`buffered` bytes had come when the header of the first of two blobs was read."""
    first, second = b"first", b"second"
    answer = b"".join(len(blob).to_bytes(8, "little") + blob for blob in (first, second))
    reader = GetResponseReader()
    for index, blob in enumerate((first, second)):
        reader.expect(index, hash_bytes(blob), ALL)
    reader.expect_end()
    reader.receive(answer[:buffered])
    assert reader.next_event() == BlobHeader(0, hash_bytes(first), 5)
    unread = reader.detach()
    assert unread == answer[8:buffered]
    assert reader.next_event() is None
    with pytest.raises(LocalProtocolError):
        reader.receive(b"x")
    elsewhere = unread + answer[buffered : max(buffered, 15)]
    assert elsewhere[:5] == first
    reader.resume_after_blob(elsewhere[5:])
    reader.receive(answer[max(buffered, 15) :])
    reader.receive_eof()
    assert reader.next_event() == BlobHeader(1, hash_bytes(second), 6)
    assert reader.next_event() == BlobData(1, 0, second)
    assert isinstance(reader.next_event(), BlobEnd)
    assert reader.next_event() == ResponseEnd()


def test_calls_that_do_not_fit():
    reader = GetResponseReader()
    with pytest.raises(LocalProtocolError, match="nothing is asked"):
        reader.expect(0, EMPTY_HASH, ChunkRanges.empty())
    with pytest.raises(LocalProtocolError, match="header"):
        reader.detach()
    with pytest.raises(LocalProtocolError, match="elsewhere"):
        reader.resume_after_blob()
    reader.expect(0, hash_bytes(b"ab"), ALL)
    reader.expect_end()
    with pytest.raises(LocalProtocolError, match="after the end"):
        reader.expect(1, EMPTY_HASH, ALL)
    reader.receive((2).to_bytes(8, "little") + b"a")
    assert isinstance(reader.next_event(), BlobHeader)
    assert reader.next_event() is None
    with pytest.raises(LocalProtocolError, match="header"):
        reader.detach()
    reader.receive_eof()
    with pytest.raises(LocalProtocolError, match="ended"):
        reader.receive(b"b")


def test_writer_skips_what_is_not_asked_for():
    writer = GetResponseWriter()
    writer.add(hash_bytes(b"x"), 1, ChunkRanges.empty(), b"x")
    assert writer.next_bytes() == b""
    with pytest.raises(ValueError, match="room"):
        writer.next_bytes(16383)


def test_writer_joins_small_blobs():
    blobs = [bytes([i]) * 10 for i in range(100)]
    writer = GetResponseWriter()
    for blob in blobs:
        writer.add(hash_bytes(blob), 10, ALL, blob)
    assert len(writer.next_bytes()) == 1800
    assert writer.next_bytes() == b""


@pytest.mark.parametrize("bytes_max", [16384, 20_000, 1 << 20])
def test_writer_keeps_its_limit(bytes_max: int):
    content = bytes(200_001)
    hash, pairs = outboard(content)
    writer = GetResponseWriter()
    writer.add(hash, len(content), ALL, content, pairs)
    writer.add(hash_bytes(b"x"), 1, ALL, b"x")
    parts = []
    while part := writer.next_bytes(bytes_max):
        assert len(part) <= bytes_max
        parts.append(part)
    assert len(b"".join(parts)) == 8 + len(pairs) + len(content) + 9


def test_writer_finds_damage():
    content = bytearray(40_000)
    hash, pairs = outboard(bytes(content))
    content[20_000] = 1
    writer = GetResponseWriter()
    writer.add(hash, len(content), ALL, bytes(content), pairs)
    answer, is_whole = take(writer)
    assert not is_whole
    # Header, two pairs and the first group are right, and are sent.
    assert len(answer) == 8 + 2 * 64 + 16384


def test_writer_hands_out_good_blobs_before_a_bad_one():
    writer = GetResponseWriter()
    writer.add(hash_bytes(b"good"), 4, ALL, b"good")
    writer.add(hash_bytes(b"good"), 3, ALL, b"bad")
    # The size of the bad blob is an item as well, and nobody's data.
    assert writer.next_bytes() == b"\4" + bytes(7) + b"good" + b"\3" + bytes(7)
    for _ in range(2):
        with pytest.raises(VerificationError):
            writer.next_bytes()
