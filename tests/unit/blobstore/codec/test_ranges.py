"""Sets of chunks: construction, rounding and the past-the-end rule against the Rust crate."""

import json
from pathlib import Path

import pytest

from blobstore.codec.ranges import CHUNK_NUM_MAX, ChunkRanges
from blobstore.codec.tree import chunk_count

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/ranges_math.json").read_text())


def ranges_of(intervals: list[list[int | None]]) -> ChunkRanges:
    return ChunkRanges.union_of((start, end) for start, end in intervals)


@pytest.mark.parametrize("case", VECTORS["bytes_to_chunks"])
def test_bytes_to_chunks(case):
    result = ChunkRanges.empty()
    for start, end in case["bytes"]:
        result |= ChunkRanges.of_bytes(start, end)
    assert result == ranges_of(case["chunks"])


@pytest.mark.parametrize("case", VECTORS["groups_log4"])
def test_rounding_to_groups(case):
    ranges = ranges_of(case["ranges"])
    assert ranges.round_up_to_groups() == ranges_of(case["round_up_to_groups"])
    assert ranges.full_groups() == ranges_of(case["full_groups_only"])


@pytest.mark.parametrize("case", VECTORS["truncate"], ids=str)
def test_truncate_selects_what_the_crate_does(case):
    size = case["size"]
    result = ranges_of(case["ranges"]).truncate(size)
    # The crate leaves the end open; both select the same chunks of the blob.
    assert result == ranges_of(case["canonical"]).truncate(size)
    chunks = chunk_count(size)
    canonical = ranges_of(case["canonical"])
    due = {chunk for chunk in range(chunks) if chunk in canonical}
    if canonical - ChunkRanges.of(0, chunks):
        due.add(chunks - 1)
    assert {chunk for chunk in range(chunks) if chunk in result} == due
    assert result.issubset(ChunkRanges.of(0, chunks))
    assert ranges_of(case["ranges"]).chunks_within(size) == len(due)


@pytest.mark.parametrize(
    "boundaries", [(-1,), (1, 1), (2, 1), (0, 2**64), (2**64,), (0, 5, 5), (5, 4, 6)]
)
def test_refused_boundaries(boundaries):
    with pytest.raises(ValueError, match="boundaries"):
        ChunkRanges(boundaries)


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, -1), (-5, -7), (0, 2**64), (-1, None)])
def test_refused_intervals(start, end):
    with pytest.raises(ValueError, match=r"chunk number|boundaries"):
        ChunkRanges.of(start, end)
    with pytest.raises(ValueError, match="chunk number"):
        ChunkRanges.union_of([(start, end)])


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, -1), (-1, None), (2**74, None)])
def test_refused_byte_ranges(start, end):
    with pytest.raises(ValueError, match=r"byte offsets|boundaries"):
        ChunkRanges.of_bytes(start, end)


def test_union_of_intervals_in_any_order():
    result = ChunkRanges.union_of([(40, None), (5, 9), (9, 12), (3, 3), (1, 6), (50, 60), (20, 21)])
    assert result.boundaries == (1, 12, 20, 21, 40)
    assert ChunkRanges.union_of([(0, 10), (5, None)]) == ChunkRanges.all()
    assert ChunkRanges.union_of([]) == ChunkRanges.empty()


def test_membership_at_each_boundary():
    ranges = ChunkRanges((2, 4, 9))
    assert [chunk for chunk in range(12) if chunk in ranges] == [2, 3, 9, 10, 11]
    assert CHUNK_NUM_MAX in ranges
    assert CHUNK_NUM_MAX in ChunkRanges.last()
    assert CHUNK_NUM_MAX - 1 not in ChunkRanges.last()
    assert 0 not in ChunkRanges.empty()


def test_named_sets():
    assert ChunkRanges.all().is_all
    assert ChunkRanges.all().is_open
    assert not ChunkRanges.empty()
    assert not ChunkRanges.of(5, 5)
    assert not ChunkRanges.of_bytes(5, 5)
    assert not ChunkRanges.of(0, 5).is_open
    assert ChunkRanges.of(7).boundaries == (7,)
    assert list(ChunkRanges((1, 3, 9)).intervals()) == [(1, 3), (9, None)]
    assert repr(ChunkRanges((1, 3, 9))) == "ChunkRanges(1..3, 9..)"


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 16384, 16385])
def test_last_chunk_of_any_size(size: int):
    chunks = chunk_count(size)
    assert ChunkRanges.last().truncate(size) == ChunkRanges.of(chunks - 1, chunks)
    assert ChunkRanges.all().truncate(size) == ChunkRanges.of(0, chunks)
    assert ChunkRanges.empty().truncate(size) == ChunkRanges.empty()


@pytest.mark.parametrize(
    ("ranges", "size", "due"),
    [
        ((), 0, ()),
        ((0, 1), 0, (0,)),
        ((0, 1), 1, (0,)),
        ((0, 1), 1025, (0, 1)),
        ((1, 2), 1025, (1,)),
        ((0, 16, 64, 65), 65537, (0, 16, 64)),
        ((0, 65), 65537, (0,)),
        ((0, 16), 65537, (0, 16)),
        ((0,), 65537, (0,)),
        # What lies past the end of the blob was never there.
        ((0, 16, 100, 200), 65537, (0, 16)),
    ],
)
def test_open_at_end(ranges, size, due):
    opened = ChunkRanges(ranges).open_at_end(size)
    assert opened.boundaries == due
    assert opened.open_at_end(size) == opened


def test_bytes_and_chunks_within():
    assert ChunkRanges.all().bytes_within(0) == 0
    assert ChunkRanges.all().chunks_within(0) == 1
    assert ChunkRanges.all().bytes_within(65537) == 65537
    assert ChunkRanges.last().bytes_within(65537) == 1
    assert ChunkRanges((0, 16, 64)).bytes_within(65537) == 16385
    assert ChunkRanges((0, 2)).bytes_within(1025) == 1025


def test_rounding_at_the_end_of_u64():
    """The group of the very last chunk has no end that a u64 can name, so it is open."""
    assert ChunkRanges.last().round_up_to_groups() == ChunkRanges.of(2**64 - 16)
    assert ChunkRanges.of(2**64 - 3, 2**64 - 2).round_up_to_groups() == ChunkRanges.of(2**64 - 16)
    assert ChunkRanges.of(2**64 - 17, 2**64 - 16).round_up_to_groups() == ChunkRanges.of(
        2**64 - 32, 2**64 - 16
    )
    assert not ChunkRanges.last().full_groups()
    assert ChunkRanges.of(2**64 - 16).full_groups() == ChunkRanges.of(2**64 - 16)
