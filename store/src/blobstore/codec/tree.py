"""Geometry of a BLAKE3 tree with chunk groups of 16 KiB: sizes and counts, no hashes.

A blob of n chunks has max(1, n) of them: the empty blob has one empty chunk. Groups decide
only which inner hashes are stored and sent; the root is plain `blake3(data)`.
"""

from __future__ import annotations

CHUNK_SIZE = 1024
CHUNKS_PER_GROUP = 16
GROUP_SIZE = CHUNK_SIZE * CHUNKS_PER_GROUP
PAIR_SIZE = 64
"""Bytes of an inner node: the hashes of its two children."""

BLOB_SIZE_MAX = 2**63 - 1
"""The largest size that we believe: what a file offset can hold."""


def chunk_count(size: int) -> int:
    """Chunks of a blob of `size` bytes; the empty blob has one, empty.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError("a size is not negative")
    return max(1, -(-size // CHUNK_SIZE))


def group_count(size: int) -> int:
    """Chunk groups of a blob of `size` bytes; the empty blob has one, empty.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError("a size is not negative")
    return max(1, -(-size // GROUP_SIZE))


def outboard_size(size: int) -> int:
    """Bytes of outboard for a blob of `size` bytes: 64 for each pair of hashes.

    n chunk groups need n - 1 pairs, so up to one group (16 KiB) needs none.

    Raises:
        ValueError: `size` is negative.
    """
    return (group_count(size) - 1) * PAIR_SIZE
