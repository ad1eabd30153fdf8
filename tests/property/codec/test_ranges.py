"""The algebra of chunk ranges against Python's sets."""

from hypothesis import given
from hypothesis import strategies as st

from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import CHUNK_SIZE, chunk_count

LIMIT = 70
"""Sets are compared up to here; an open one holds everything from its last boundary on."""

boundaries = st.lists(st.integers(0, 60), unique=True, max_size=9).map(sorted)
chunk_ranges = boundaries.map(ChunkRanges)
sizes = st.one_of(st.just(0), st.integers(1, 50 * CHUNK_SIZE))


def members(ranges: ChunkRanges) -> set[int]:
    """The slow, obvious version: walk the boundaries and flip."""
    points = set(ranges.boundaries)
    inside = False
    result: set[int] = set()
    for chunk in range(LIMIT):
        inside ^= chunk in points
        if inside:
            result.add(chunk)
    return result


def is_canonical(ranges: ChunkRanges) -> bool:
    return ChunkRanges(ranges.boundaries) == ranges


@given(chunk_ranges, chunk_ranges)
def test_operators_are_those_of_sets(a: ChunkRanges, b: ChunkRanges):
    for result, due in (
        (a | b, members(a) | members(b)),
        (a & b, members(a) & members(b)),
        (a - b, members(a) - members(b)),
        (a ^ b, members(a) ^ members(b)),
    ):
        assert members(result) == due
        assert is_canonical(result)
        assert bool(result) == bool(due)
    assert a.issubset(b) == (members(a) <= members(b))
    assert (a | b) - (a & b) == a ^ b


@given(chunk_ranges)
def test_membership_and_intervals(ranges: ChunkRanges):
    assert {chunk for chunk in range(LIMIT) if chunk in ranges} == members(ranges)
    assert ChunkRanges.union_of(ranges.intervals()) == ranges
    assert ranges.is_open == ((LIMIT - 1) in members(ranges))


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 60)), max_size=8))
def test_union_of_any_intervals(intervals: list[tuple[int, int | None]]):
    due: set[int] = set()
    for start, end in intervals:
        due |= set(range(start, LIMIT if end is None else end))
    assert members(ChunkRanges.union_of(intervals)) == due


@given(chunk_ranges, sizes)
def test_what_a_request_selects(ranges: ChunkRanges, size: int):
    chunks = chunk_count(size)
    due = {chunk for chunk in members(ranges) if chunk < chunks}
    if any(chunk >= chunks for chunk in members(ranges)):
        due.add(chunks - 1)
    selected = ranges.truncate(size)
    assert members(selected) == due
    assert ranges.chunks_within(size) == len(due)
    assert ranges.bytes_within(size) == sum(
        max(0, min(size, (chunk + 1) * CHUNK_SIZE) - chunk * CHUNK_SIZE) for chunk in due
    )
    opened = selected.open_at_end(size)
    assert opened.truncate(size) == selected
    assert opened.is_open == (chunks - 1 in due)
    assert opened.is_all == (len(due) == chunks)


@given(chunk_ranges)
def test_rounding(ranges: ChunkRanges):
    held = members(ranges)
    groups = range(LIMIT // 16)
    whole = {g for g in groups if set(range(16 * g, 16 * g + 16)) <= held}
    touched = {g for g in groups if set(range(16 * g, 16 * g + 16)) & held}
    inside = set(range(16 * len(groups)))
    assert members(ranges.full_groups()) & inside == {c for c in inside if c // 16 in whole}
    assert members(ranges.round_up_to_groups()) & inside == {
        c for c in inside if c // 16 in touched
    }
    assert ranges.full_groups().issubset(ranges)
    assert ranges.issubset(ranges.round_up_to_groups())


@given(st.integers(0, 5000), st.none() | st.integers(0, 5000))
def test_chunks_of_bytes(start: int, end: int | None):
    due = {byte // CHUNK_SIZE for byte in range(start, 6000 if end is None else end)}
    result = ChunkRanges.of_bytes(start, end)
    assert {chunk for chunk in range(6) if chunk in result} == {c for c in due if c < 6}
