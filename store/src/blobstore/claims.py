"""What is claimed of a partial blob, and how a claim grows: values and rules, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobstore.codec.ranges import ChunkRanges
from blobstore.codec.tree import BLOB_SIZE_MAX, chunk_count
from blobstore.errors import VerificationError

if TYPE_CHECKING:
    from blobstore.codec.hash import Hash


@dataclass(frozen=True, slots=True)
class Claim:
    """Size and chunks of a partial blob."""

    size: int | None = None
    """As claimed by a peer until `size_proven`; None if nothing was claimed yet."""
    size_proven: bool = False
    bitfield: ChunkRanges = ChunkRanges()  # noqa: RUF009 - immutable

    def extend(self, hash: Hash, proven: ChunkRanges, size: int, *, size_proven: bool) -> Claim:
        """The claim with more chunks in it.

        Raises:
            ValueError: chunks beyond the size, or a size that no blob has.
            VerificationError: another size was proven before.
        """
        if not 0 <= size <= BLOB_SIZE_MAX:
            raise ValueError(f"no blob has {size} bytes")
        if not proven.issubset(ChunkRanges.of(0, chunk_count(size))):
            raise ValueError(f"chunks beyond the end of {size} bytes: {proven}")
        held = self.bitfield
        if self.size is not None and self.size != size:
            if self.size_proven:
                raise VerificationError(hash, detail=f"it has {self.size} bytes, not {size}")
            # The place of a pair depends on the size: what was proven under another is lost.
            held = ChunkRanges.empty()
        return Claim(size, self.size_proven or size_proven, held | proven)

    def whole_size(self, hash: Hash) -> int:
        """The size of a blob that is there as a whole.

        Raises:
            VerificationError: the bitfield does not cover it or the size is not proven.
        """
        if self.size is None or not self.size_proven:
            raise VerificationError(hash, detail="its size is not proven")
        missing = ChunkRanges.of(0, chunk_count(self.size)) - self.bitfield
        if missing:
            raise VerificationError(hash, missing.boundaries[0], "it is not complete")
        return self.size

    def whole_groups(self) -> ChunkRanges:
        """Chunks that can be proven again, and thus be served: those in whole groups.

        Pairs inside a group are not kept, so that a piece of a group has no path to the root.
        """
        if self.size is None:
            return ChunkRanges.empty()
        chunks = chunk_count(self.size)
        held = self.bitfield
        if self.size_proven and chunks - 1 in held:
            # The last group is whole although it may be shorter than others.
            held = held | ChunkRanges.of(chunks)
        return held.full_groups() & ChunkRanges.of(0, chunks)
