"""What of a fetch is still to be asked for, cut into requests. Pure: no streams, no clock.

A job is what one request asks for: a segment of a large blob, or some blobs that stand next to
each other. Jobs are cut when they are taken, so that their size can follow what the network is
like; what a job did not bring is given back and is taken again. Together the jobs ask for every
chunk exactly once.

Segments begin and end at multiples of a power of two of chunks, so that each is a whole subtree:
then few inner hashes, those above the subtree, travel with more than one segment.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blobstore import ChunkRanges
from blobstore.codec.tree import CHUNK_SIZE, CHUNKS_PER_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blobstore import Hash
    from blobsync.protocols.blobs.pumps import Element

_Waiting = tuple["Element", int]
"""A piece, and its bytes if its size is known, else 0."""

Job = tuple["Element", ...]
"""The elements of one request, ascending; never empty."""


@dataclass(frozen=True, slots=True)
class JobSize:
    """How much one job may ask for."""

    bytes: int
    """Of blobs whose size is known; what is well over it is cut into segments."""
    elements: int | None
    """Blobs of unknown size count by number only; None: as many as there are."""


class Segments:
    """The elements of a fetch: which pieces of them wait for a job, and which are under way."""

    def __init__(self, elements: Iterable[Element], sizes: Mapping[Hash, int]) -> None:
        """`elements` ascend by index; `sizes` are those that are known."""
        self._sizes = dict(sizes)
        self._waiting: deque[_Waiting] = deque()
        self._bytes_waiting = 0
        self._pieces: Counter[int] = Counter()
        self.put(elements)

    @property
    def is_empty(self) -> bool:
        """Nothing waits; jobs that are under way may still give some back."""
        return not self._waiting

    @property
    def bytes_waiting(self) -> int:
        """Bytes of the waiting pieces whose size is known."""
        return self._bytes_waiting

    def put(self, elements: Iterable[Element]) -> None:
        """New pieces, to be taken before all others."""
        elements = tuple(elements)
        self._pieces.update(element.index for element in elements)
        self.give_back(elements)

    def give_back(self, elements: Iterable[Element]) -> None:
        """Pieces that were under way wait again, with the ranges that are missing."""
        for element in reversed(tuple(elements)):
            self._push(element)

    def divide(
        self, job: Iterable[Element], kept: Iterable[Element], later: Iterable[Element]
    ) -> None:
        """A job was too much: of it only `kept` is under way, and `later` waits again."""
        later = tuple(later)
        self._pieces.subtract(element.index for element in job)
        self._pieces.update(element.index for element in (*kept, *later))
        self.give_back(later)

    def done(self, element: Element) -> None:
        """A piece that was under way has come."""
        self._pieces[element.index] -= 1

    def is_wanted(self, index: int) -> bool:
        """Whether a piece of a blob waits or is under way."""
        return self._pieces[index] > 0

    def size_of(self, hash: Hash) -> int | None:
        """The size of a blob, if it is known."""
        return self._sizes.get(hash)

    def learn_size(self, hash: Hash, size: int) -> None:
        """A size came with an answer: pieces given back from now on are cut by it."""
        self._sizes.setdefault(hash, size)

    def take(self, size: JobSize) -> Job | None:
        """The next job; None if nothing waits."""
        job: list[Element] = []
        used = 0
        while self._waiting and (size.elements is None or len(job) < size.elements):
            element, cost = self._waiting[0]
            if job and (used + cost > size.bytes or element.index <= job[-1].index):
                break
            if cost > size.bytes + size.bytes // 2:
                return (self._cut(size.bytes),)
            job.append(self._pop())
            used += cost
        return tuple(job) or None

    def _push(self, element: Element) -> None:
        size = self._sizes.get(element.hash)
        cost = 0 if size is None else element.ranges.bytes_within(size)
        self._waiting.appendleft((element, cost))
        self._bytes_waiting += cost

    def _pop(self) -> Element:
        element, cost = self._waiting.popleft()
        self._bytes_waiting -= cost
        return element

    def _cut(self, target: int) -> Element:
        """Take a segment of about `target` bytes from the first element."""
        element = self._pop()
        size = self._sizes[element.hash]
        unit = segment_chunks(target)
        piece, rest = ChunkRanges.empty(), element.ranges
        while piece.bytes_within(size) < max(1, target // 2):
            if not rest or rest.boundaries[0] * CHUNK_SIZE >= size:
                # Past its end a blob has its last chunk once more.
                return element
            stop = (rest.boundaries[0] // unit + 1) * unit
            piece = element.ranges & ChunkRanges.of(0, stop)
            rest = element.ranges - piece
        if not rest or rest.boundaries[0] * CHUNK_SIZE >= size:
            return element
        self._push(replace(element, ranges=rest))
        self._pieces[element.index] += 1
        return replace(element, ranges=piece)


def segment_chunks(bytes: int) -> int:
    """Chunks of the largest subtree that is not over so many bytes; at least one group."""
    chunks = max(bytes // CHUNK_SIZE, CHUNKS_PER_GROUP)
    return 1 << (chunks.bit_length() - 1)
