"""Sets of chunk numbers, as sorted boundaries.

A `ChunkRanges` is the strictly increasing tuple of the points where membership flips,
starting outside: `(0, 64)` is chunks 0 to 63, `(64,)` everything from 64 on, `()` nothing.
It is the form of bao-tree and, as differences, of the wire. Chunks are 1024 bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NewType, Self

from blobstore.codec.tree import CHUNK_SIZE, CHUNKS_PER_GROUP, chunk_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ChunkNum = NewType("ChunkNum", int)

CHUNK_NUM_MAX = ChunkNum(2**64 - 1)


class ChunkRanges:
    """An immutable set of chunk numbers in [0, 2^64), possibly open to infinity.

    Sets combine with `|`, `&`, `-` and `^`; an empty one is false.

    Raises:
        ValueError: the boundaries are not strictly increasing or leave u64.
    """

    __slots__ = ("boundaries",)
    boundaries: tuple[int, ...]

    def __init__(self, boundaries: Iterable[int] = ()) -> None:
        self.boundaries = tuple(boundaries)
        previous = -1
        for boundary in self.boundaries:
            if not previous < boundary <= CHUNK_NUM_MAX:
                raise ValueError(f"boundaries must increase within u64: {boundary}")
            previous = boundary

    @classmethod
    def _trusted(cls, boundaries: tuple[int, ...]) -> Self:
        ranges = cls.__new__(cls)
        ranges.boundaries = boundaries
        return ranges

    @staticmethod
    def _check(*numbers: int) -> None:
        for number in numbers:
            if not 0 <= number <= CHUNK_NUM_MAX:
                raise ValueError(f"not a chunk number: {number}")

    @classmethod
    def all(cls) -> Self:
        """Every chunk."""
        return cls._trusted((0,))

    @classmethod
    def empty(cls) -> Self:
        """No chunk."""
        return cls._trusted(())

    @classmethod
    def last(cls) -> Self:
        """The last chunk of a blob of any size: past the end means the last chunk."""
        return cls._trusted((CHUNK_NUM_MAX,))

    @classmethod
    def of(cls, start: int, end: int | None = None) -> Self:
        """The chunks `[start, end)`; `end` None is open, and one not above `start` is nothing.

        Raises:
            ValueError: a number is negative or leaves u64.
        """
        if end is None:
            return cls((start,))
        if start < end:
            return cls((start, end))
        cls._check(start, end)
        return cls.empty()

    @classmethod
    def of_bytes(cls, start: int, end: int | None = None) -> Self:
        """The chunks that hold the bytes `[start, end)`: start rounded down, end up.

        Raises:
            ValueError: an offset is negative or beyond 2^64 chunks.
        """
        if start < 0 or (end is not None and end < 0):
            raise ValueError("byte offsets are not negative")
        if end is None:
            return cls((start // CHUNK_SIZE,))
        if end <= start:
            return cls.empty()
        return cls.of(start // CHUNK_SIZE, -(-end // CHUNK_SIZE))

    @classmethod
    def union_of(cls, intervals: Iterable[tuple[int, int | None]]) -> Self:
        """The union of half-open intervals in any order; `None` ends an open one.

        Raises:
            ValueError: a number is negative or leaves u64.
        """
        boundaries: list[int] = []
        for start, end in sorted(intervals, key=lambda interval: interval[0]):
            cls._check(start, start if end is None else end)
            if (end is not None and end <= start) or len(boundaries) % 2:
                continue
            if boundaries and start <= boundaries[-1]:
                if end is None:
                    boundaries.pop()
                else:
                    boundaries[-1] = max(boundaries[-1], end)
                continue
            boundaries.append(start)
            if end is not None:
                boundaries.append(end)
        return cls(boundaries)

    def intervals(self) -> Iterator[tuple[int, int | None]]:
        """The half-open intervals `(start, end)` in order; an open one ends in None."""
        points = self.boundaries
        for i in range(0, len(points), 2):
            yield points[i], points[i + 1] if i + 1 < len(points) else None

    @property
    def is_all(self) -> bool:
        """Whether every chunk is in the set, open to infinity."""
        return self.boundaries == (0,)

    @property
    def is_open(self) -> bool:
        """Whether the set has no end."""
        return len(self.boundaries) % 2 == 1

    def __bool__(self) -> bool:
        return bool(self.boundaries)

    def __contains__(self, chunk: int) -> bool:
        return bisect_right(self.boundaries, chunk) % 2 == 1

    def _merge(self, other: ChunkRanges, table: tuple[bool, bool, bool, bool]) -> Self:
        """Combine by a truth table indexed with 2 * in_self + in_other."""
        left, right = self.boundaries, other.boundaries
        i = j = 0
        state = False
        points: list[int] = []
        while i < len(left) or j < len(right):
            if j == len(right) or (i < len(left) and left[i] <= right[j]):
                point = left[i]
            else:
                point = right[j]
            if i < len(left) and left[i] == point:
                i += 1
            if j < len(right) and right[j] == point:
                j += 1
            wanted = table[2 * (i & 1) + (j & 1)]
            if wanted != state:
                points.append(point)
                state = wanted
        return self._trusted(tuple(points))

    def __or__(self, other: ChunkRanges) -> Self:
        return self._merge(other, (False, True, True, True))

    def __and__(self, other: ChunkRanges) -> Self:
        return self._merge(other, (False, False, False, True))

    def __sub__(self, other: ChunkRanges) -> Self:
        return self._merge(other, (False, False, True, False))

    def __xor__(self, other: ChunkRanges) -> Self:
        return self._merge(other, (False, True, True, False))

    def issubset(self, other: ChunkRanges) -> bool:
        """Whether `other` holds every chunk of this set."""
        return not self - other

    def truncate(self, size: int) -> Self:
        """The chunks selected in a blob of `size` bytes: past the end means the last chunk.

        The result is a subset of `[0, chunk_count(size))`.

        Raises:
            ValueError: `size` is negative.
        Source: bao-tree 0.17, `truncate_ranges`, which leaves the end open instead.
        """
        chunks = chunk_count(size)
        if self.is_all:
            return self._trusted((0, chunks))
        blob = ChunkRanges._trusted((0, chunks))
        inside = self & blob
        if self - blob:
            inside = inside | ChunkRanges._trusted((chunks - 1, chunks))
        return inside

    def open_at_end(self, size: int) -> Self:
        """The same chunks of a blob of `size` bytes, open to infinity if its last is among them.

        This is how the bitfield of a blob of proven size is written: a complete blob is all, and
        what a request selects past the end is taken from it as well. The rest past the end is cut.

        Raises:
            ValueError: `size` is negative.
        """
        chunks = chunk_count(size)
        inside = self & ChunkRanges._trusted((0, chunks))
        if chunks - 1 in inside:
            return self._trusted(inside.boundaries[:-1])
        return self._trusted(inside.boundaries)

    def round_up_to_groups(self) -> Self:
        """The smallest set of whole chunk groups that holds this one."""
        step = CHUNKS_PER_GROUP
        intervals: list[tuple[int, int | None]] = []
        for start, end in self.intervals():
            rounded = None if end is None else -(-end // step) * step
            # The last group there is has no end that a u64 can name.
            open_end = rounded is None or rounded > CHUNK_NUM_MAX
            intervals.append((start // step * step, None if open_end else rounded))
        return self.union_of(intervals)

    def full_groups(self) -> Self:
        """The chunk groups that lie in this set as a whole."""
        step = CHUNKS_PER_GROUP
        points: list[int] = []
        for start, end in self.intervals():
            first = -(-start // step) * step
            if end is None:
                if first <= CHUNK_NUM_MAX:
                    points.append(first)
            elif first < end // step * step:
                points += [first, end // step * step]
        return self._trusted(tuple(points))

    def chunks_within(self, size: int) -> int:
        """How many chunks of a blob of `size` bytes are selected."""
        return sum((end or 0) - start for start, end in self.truncate(size).intervals())

    def bytes_within(self, size: int) -> int:
        """How many bytes of a blob of `size` bytes the selected chunks hold."""
        return sum(
            min((end or 0) * CHUNK_SIZE, size) - start * CHUNK_SIZE
            for start, end in self.truncate(size).intervals()
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkRanges) and self.boundaries == other.boundaries

    def __hash__(self) -> int:
        return hash(self.boundaries)

    def __repr__(self) -> str:
        parts = (f"{s}..{'' if e is None else e}" for s, e in self.intervals())
        return f"ChunkRanges({', '.join(parts)})"
