"""Range specs and chunk ranges seqs against the Rust peer."""

import json
from itertools import islice
from pathlib import Path

import pytest

from blobstore.codec.ranges import ChunkRanges
from blobsync.errors import RemoteProtocolError
from blobsync.wire.postcard import Reader, Writer
from blobsync.wire.range_spec import ChunkRangesSeq, read_range_spec, write_range_spec

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/range_specs.json").read_text())
SEQS = VECTORS["chunk_ranges_seq"]
ALL = ChunkRanges.all()
EMPTY = ChunkRanges.empty()


def ranges_of(intervals) -> ChunkRanges:
    return ChunkRanges.union_of((start, end) for start, end in intervals)


def decode_seq(wire: str) -> ChunkRangesSeq:
    reader = Reader(bytes.fromhex(wire))
    seq = ChunkRangesSeq.read(reader)
    reader.finish()
    return seq


def encode_seq(seq: ChunkRangesSeq) -> str:
    writer = Writer()
    seq.write(writer)
    return bytes(writer).hex()


@pytest.mark.parametrize("case", VECTORS["range_spec"], ids=lambda case: case["name"])
def test_range_spec(case):
    data = bytes.fromhex(case["wire"])
    ranges = ranges_of(case["ranges"])
    writer = Writer()
    write_range_spec(writer, ranges)
    assert bytes(writer) == data
    reader = Reader(data + b"\x00")
    assert read_range_spec(reader) == ranges
    assert reader.remaining == 1
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            read_range_spec(Reader(data[:size]))


@pytest.mark.parametrize("case", SEQS, ids=lambda case: case["name"])
def test_chunk_ranges_seq(case):
    seq = decode_seq(case["wire"])
    assert encode_seq(seq) == case["wire"]
    elements = [ranges_of(element) for element in case["first_6_elements"]]
    assert [seq.ranges_at(i) for i in range(6)] == elements
    selected = [(index, ranges_of(ranges)) for index, ranges in case["first_6_non_empty"]]
    assert list(islice(seq.elements(), 6)) == selected
    assert seq.is_infinite == case["infinite"]
    assert seq.is_blob == case["is_blob"]
    assert bool(seq) != case["is_empty"]
    assert (seq.end is None) == case["infinite"]
    if seq.end is not None:
        assert seq.end == max((index + 1 for index, _ in seq.elements()), default=0)
    data = bytes.fromhex(case["wire"])
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            ChunkRangesSeq.read(Reader(data[:size]))


@pytest.mark.parametrize("case", VECTORS["must_reject"], ids=lambda case: case["why"])
def test_only_one_form_is_read(case):
    # The last two are range specs; the sequence around them is what a Get holds.
    with pytest.raises(RemoteProtocolError):
        decode_seq(case["wire"])


@pytest.mark.parametrize("case", VECTORS["lenient"], ids=lambda case: case["what"])
def test_what_postcard_lets_pass(case):
    reader = Reader(bytes.fromhex(case["wire"]))
    seq = ChunkRangesSeq.read(reader)
    assert encode_seq(seq) == case["re_encoded"]
    if "trailing" in case["what"]:
        with pytest.raises(RemoteProtocolError, match="too many"):
            reader.finish()


def test_a_count_beyond_the_message_is_refused():
    for wire in ("ffffffffffffffffff01", "03000000", "0100ffffffffffffffffff01"):
        with pytest.raises(RemoteProtocolError, match="no room"):
            decode_seq(wire)


@pytest.mark.parametrize(
    "runs",
    [
        [(0, EMPTY)],
        [(0, ALL), (0, EMPTY)],
        [(1, ALL), (0, EMPTY)],
        [(0, ALL), (1, ALL)],
        [(-1, ALL)],
        [(2**64, ALL)],
    ],
)
def test_runs_in_another_form(runs):
    with pytest.raises(ValueError, match="chunk ranges seq"):
        ChunkRangesSeq(runs)


def test_from_runs_finds_the_one_form():
    runs = [(0, EMPTY), (1, ALL), (2, ALL), (5, ChunkRanges((0,))), (6, EMPTY), (9, EMPTY)]
    assert ChunkRangesSeq.from_runs(runs).runs == ((1, ALL), (6, EMPTY))
    assert ChunkRangesSeq.from_runs([]) == ChunkRangesSeq.empty()
    with pytest.raises(ValueError, match="increase"):
        ChunkRangesSeq.from_runs([(3, ALL), (2, EMPTY)])


def test_from_elements_fills_the_gaps():
    two = ChunkRanges.of(0, 2)
    seq = ChunkRangesSeq.from_elements([(1, ALL), (2, ALL), (3, two), (7, two), (9, EMPTY)])
    assert seq.runs == ((1, ALL), (3, two), (4, EMPTY), (7, two), (8, EMPTY))
    assert list(seq.elements()) == [(1, ALL), (2, ALL), (3, two), (7, two)]
    assert ChunkRangesSeq.from_elements([]) == ChunkRangesSeq.empty()
    for elements in ([(1, ALL), (1, two)], [(2, ALL), (1, ALL)]):
        with pytest.raises(ValueError, match="increase"):
            ChunkRangesSeq.from_elements(elements)


def test_named_sequences():
    assert encode_seq(ChunkRangesSeq.empty()) == "00"
    assert encode_seq(ChunkRangesSeq.all()) == "01000100"
    assert encode_seq(ChunkRangesSeq.blob()) == "020001000100"
    assert encode_seq(ChunkRangesSeq.blob(ChunkRanges.of(0, 10))) == "020002000a0100"
    assert encode_seq(ChunkRangesSeq.blob(EMPTY)) == "00"
    assert encode_seq(ChunkRangesSeq.child_sizes()) == "020001000101ffffffffffffffffff01"


def test_up_to_makes_it_finite():
    assert encode_seq(ChunkRangesSeq.all().up_to(1)) == "020001000100"
    assert encode_seq(ChunkRangesSeq.all().up_to(4)) == "020001000400"
    assert ChunkRangesSeq.all().up_to(0) == ChunkRangesSeq.empty()
    assert ChunkRangesSeq.blob().up_to(7) == ChunkRangesSeq.blob()
    assert ChunkRangesSeq.empty().up_to(3) == ChunkRangesSeq.empty()
    children = decode_seq("01010100")
    assert children.up_to(1) == ChunkRangesSeq.empty()
    with pytest.raises(ValueError, match="negative"):
        children.up_to(-1)


def test_is_a_value():
    assert hash(ChunkRangesSeq.all()) == hash(decode_seq("01000100"))
    assert ChunkRangesSeq.all() != ChunkRangesSeq.blob()
    assert ChunkRangesSeq.all() != "01000100"
    assert repr(ChunkRangesSeq.blob()) == "ChunkRangesSeq(0: ChunkRanges(0..), 1: ChunkRanges())"
