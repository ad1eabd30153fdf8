"""What is still to be asked for, from what was asked and what is here. A pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobstore.codec.ranges import ChunkRanges
from blobsync.wire.range_spec import ChunkRangesSeq

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EMPTY = ChunkRanges.empty()


def missing(
    request: ChunkRangesSeq,
    root_bitfield: ChunkRanges,
    child_bitfields: Sequence[ChunkRanges] = (),
    child_count: int | None = None,
) -> ChunkRangesSeq:
    """The part of `request` that is not here.

    Bitfields of blobs whose last chunk is here are open at their end, as
    `ChunkRanges.open_at_end` writes them; otherwise what a request selects past the end of a
    complete blob would be asked for again.

    Args:
        request: what is wanted in the end.
        root_bitfield: chunks of the root that are here.
        child_bitfields: chunks of child 0, 1, ... that are here. It may end early: of children
            whose hash is not known yet, everything wanted is missing. To read hashes from a root
            that is here in part, whole chunk groups of it are needed.
        child_count: number of children, once the size of the root is proven; the result then ends
            with the last child, even if the request does not.
    """
    if child_count is not None:
        request = request.up_to(1 + child_count)
    return ChunkRangesSeq.from_runs(_runs(request, root_bitfield, child_bitfields))


def _runs(
    request: ChunkRangesSeq, root_bitfield: ChunkRanges, child_bitfields: Sequence[ChunkRanges]
) -> Iterator[tuple[int, ChunkRanges]]:
    runs = request.runs
    known = 1 + len(child_bitfields)
    for position, (start, wanted) in enumerate(runs):
        end = runs[position + 1][0] if position + 1 < len(runs) else None
        if not wanted or start >= known:
            yield start, wanted
            continue
        for index in range(start, known if end is None else min(end, known)):
            here = child_bitfields[index - 1] if index else root_bitfield
            # Most children are here or not as a whole; a million of them should take no time.
            if not here:
                yield index, wanted
            else:
                yield index, _EMPTY if here.is_all else wanted - here
        if end is None or end > known:
            yield known, wanted
