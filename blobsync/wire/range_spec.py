"""Which chunks of which blobs: the ranges of a request and their bytes.

A *range spec* is the chunks of one blob: the count of its boundaries, then their differences. A
*chunk ranges seq* gives every element of a request its own: element 0 is the root (or the only
blob), element i + 1 the root's child i. It is run-length coded, `count, (delta, range spec)*`:
from this element on, until the next entry; elements before the first entry are empty, and the
last entry holds for ever. So a sequence is infinite, or ends with an entry that is empty.

Each value has one form only, and decoding refuses the others: the first entry is not empty, no
entry is equal to the one before it, no difference after the first is 0, nothing leaves u64.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import count, pairwise
from typing import TYPE_CHECKING, Self

from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.varint import U64_MAX
from blobsync.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blobsync.wire.postcard import Reader, Writer

_EMPTY = ChunkRanges.empty()
_ALL = ChunkRanges.all()


def write_range_spec(writer: Writer, ranges: ChunkRanges) -> None:
    """Append the chunks of one blob."""
    writer.varint(len(ranges.boundaries))
    previous = 0
    for boundary in ranges.boundaries:
        writer.varint(boundary - previous)
        previous = boundary


def read_range_spec(reader: Reader) -> ChunkRanges:
    """Take the chunks of one blob.

    Raises:
        RemoteProtocolError: not a range spec, or not in its one form.
    """
    boundaries: list[int] = []
    previous = -1
    for _ in range(reader.count(1)):
        boundary = reader.varint() + max(previous, 0)
        if not previous < boundary <= U64_MAX:
            raise RemoteProtocolError("the boundaries of a range spec do not increase within u64")
        boundaries.append(boundary)
        previous = boundary
    if not boundaries:
        return _EMPTY
    # One value for the most frequent spec keeps large requests small in memory.
    return _ALL if boundaries == [0] else ChunkRanges(boundaries)


class ChunkRangesSeq:
    """An immutable, possibly infinite sequence of chunk ranges; false if all are empty.

    `runs` are (first element, ranges) pairs in the one form that the wire has: each holds until
    the next. `from_runs` and `from_elements` bring others into it.

    Raises:
        ValueError: the runs are not in that form.
    """

    __slots__ = ("_ranges", "_starts")
    _starts: tuple[int, ...]
    _ranges: tuple[ChunkRanges, ...]

    def __init__(self, runs: Iterable[tuple[int, ChunkRanges]] = ()) -> None:
        pairs = tuple(runs)
        self._starts = tuple(start for start, _ in pairs)
        self._ranges = tuple(ranges for _, ranges in pairs)
        if any(not 0 <= start <= U64_MAX for start in self._starts) or any(
            left >= right for left, right in pairwise(self._starts)
        ):
            raise ValueError("the elements of a chunk ranges seq do not increase within u64")
        if (self._ranges and not self._ranges[0]) or any(
            left == right for left, right in pairwise(self._ranges)
        ):
            raise ValueError("a run of a chunk ranges seq is equal to the one before it")

    @classmethod
    def from_runs(cls, runs: Iterable[tuple[int, ChunkRanges]]) -> Self:
        """The sequence of runs with increasing starts; neighbours that are equal become one.

        Raises:
            ValueError: the starts do not increase within u64.
        """
        kept: list[tuple[int, ChunkRanges]] = []
        last = _EMPTY
        for start, ranges in runs:
            if ranges is not last and ranges != last:
                kept.append((start, ranges))
                last = ranges
        return cls(kept)

    @classmethod
    def from_elements(cls, elements: Iterable[tuple[int, ChunkRanges]]) -> Self:
        """The finite sequence of these (element, ranges) pairs; all others are empty.

        Raises:
            ValueError: the elements do not increase within u64.
        """
        runs: list[tuple[int, ChunkRanges]] = []
        last, due = _EMPTY, 0
        for index, ranges in elements:
            if index != due:
                # From here on what is not given is empty, also where the order is wrong.
                runs += ((due, _EMPTY), (index, ranges))
            elif ranges is not last:
                runs.append((index, ranges))
            last, due = ranges, index + 1
        runs.append((due, _EMPTY))
        return cls.from_runs(runs)

    @classmethod
    def empty(cls) -> Self:
        """Nothing of anything."""
        return cls()

    @classmethod
    def all(cls) -> Self:
        """A hash seq and every child, whole."""
        return cls(((0, _ALL),))

    @classmethod
    def blob(cls, ranges: ChunkRanges = _ALL) -> Self:
        """One blob, or these chunks of it."""
        return cls.from_elements(((0, ranges),))

    @classmethod
    def child_sizes(cls) -> Self:
        """A hash seq, and the last chunk of every child: the proof of its size."""
        return cls(((0, _ALL), (1, ChunkRanges.last())))

    @property
    def runs(self) -> tuple[tuple[int, ChunkRanges], ...]:
        """(first element, ranges): each holds until the next, the last one for ever."""
        return tuple(zip(self._starts, self._ranges, strict=True))

    @property
    def is_infinite(self) -> bool:
        """Whether the last run is not empty."""
        return bool(self._ranges) and bool(self._ranges[-1])

    @property
    def is_blob(self) -> bool:
        """Whether it asks for one blob, by itself: something of the root and nothing else."""
        return self._starts == (0, 1) and not self._ranges[1]

    @property
    def end(self) -> int | None:
        """The number of the element behind the last one that is not empty; None if infinite."""
        if self.is_infinite:
            return None
        return self._starts[-1] if self._starts else 0

    def ranges_at(self, index: int) -> ChunkRanges:
        """The chunks of element `index`."""
        at = bisect_right(self._starts, index)
        return self._ranges[at - 1] if at else _EMPTY

    def elements(self) -> Iterator[tuple[int, ChunkRanges]]:
        """(element, ranges) of each element that is not empty, ascending; may never end."""
        for at, (start, ranges) in enumerate(self.runs):
            if ranges:
                is_last = at + 1 == len(self._starts)
                for index in count(start) if is_last else range(start, self._starts[at + 1]):
                    yield index, ranges

    def up_to(self, end: int) -> ChunkRangesSeq:
        """The elements before `end`; a finite sequence.

        Raises:
            ValueError: `end` is negative.
        """
        if end < 0:
            raise ValueError("the number of an element is not negative")
        kept = [(start, ranges) for start, ranges in self.runs if start < end]
        return ChunkRangesSeq.from_runs([*kept, (end, _EMPTY)] if kept else [])

    def write(self, writer: Writer) -> None:
        """Append the sequence to a message."""
        writer.varint(len(self._starts))
        previous = 0
        for start, ranges in zip(self._starts, self._ranges, strict=True):
            writer.varint(start - previous)
            write_range_spec(writer, ranges)
            previous = start

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Take a sequence from a message.

        Raises:
            RemoteProtocolError: not a chunk ranges seq, or not in its one form.
        """
        starts: list[int] = []
        specs: list[ChunkRanges] = []
        start = 0
        last = _EMPTY
        for _ in range(reader.count(2)):
            delta = reader.varint()
            start += delta
            ranges = read_range_spec(reader)
            if (starts and not delta) or start > U64_MAX:
                raise RemoteProtocolError("the elements of a request do not increase within u64")
            if ranges is last or ranges == last:
                raise RemoteProtocolError("an entry of a request is equal to the one before it")
            starts.append(start)
            specs.append(ranges)
            last = ranges
        # Checked as it was read: a peer may send half a million entries.
        seq = cls.__new__(cls)
        seq._starts, seq._ranges = tuple(starts), tuple(specs)
        return seq

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ChunkRangesSeq)
            and self._starts == other._starts
            and self._ranges == other._ranges
        )

    def __hash__(self) -> int:
        return hash((self._starts, self._ranges))

    def __repr__(self) -> str:
        return f"ChunkRangesSeq({', '.join(f'{start}: {ranges!r}' for start, ranges in self.runs)})"
