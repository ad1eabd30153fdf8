"""The encoding of ranges of a blob: made and taken apart, every piece checked against the root.

Thin over `pybao`, whose errors become ours here. An encoding is the size (8 bytes, little endian),
then the pairs of hashes and the pieces of data of the chosen chunks in pre-order; there is exactly
one for a blob and a set of chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Never

import pybao
from blobstore.codec.hash import Hash
from blobstore.codec.ranges import ChunkRanges
from blobstore.errors import BlobError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE_HEADER_SIZE = 8
"""Bytes of the size in front of an encoding."""

ITEM_SIZE_MAX = pybao.GROUP_SIZE
"""Bytes of the largest item: the data of a whole chunk group."""


class EncodingEndedError(BlobError):
    """An encoding ended before all that was asked for had come.

    Attributes:
        hash: the blob's root.
        chunk: first chunk of what was due, if known.
        is_within_item: it broke off in the middle of something, so whoever made it failed; an end
            between two items is how a sender says that it does not hold the rest.
    """

    def __init__(self, hash: Hash, chunk: int | None, *, is_within_item: bool) -> None:
        where = "" if chunk is None else f" at chunk {chunk}"
        how = "broke off within an item" if is_within_item else "ended"
        super().__init__(f"the encoding of {hash} {how}{where}")
        self.hash = hash
        self.chunk = chunk
        self.is_within_item = is_within_item


def hash_bytes(data: bytes) -> Hash:
    """The hash of a blob in memory."""
    return Hash(pybao.hash(data))


def outboard(data: bytes) -> tuple[Hash, bytes]:
    """Hash and pre-order outboard of a blob in memory."""
    root, pairs = pybao.outboard(data)
    return Hash(root), pairs


class BlobEncoder:
    """Makes the encoding of ranges of one blob, a few items at a time.

    `data` and `outboard` are bytes or descriptors, read with `pread`.

    Raises:
        ValueError: size and the length of bytes given do not fit together.
    """

    def __init__(
        self,
        hash: Hash,
        size: int,
        ranges: ChunkRanges,
        data: bytes | int,
        outboard: bytes | int,
        *,
        header: bool = True,
    ) -> None:
        self._hash = hash
        self._encoder = pybao.Encoder(hash, size, ranges.boundaries, data, outboard, header=header)

    @property
    def encoded_size(self) -> int:
        """Bytes of the whole encoding."""
        return self._encoder.encoded_size

    def next(self, bytes_max: int = 1 << 20) -> bytes:
        """The next whole items, at most `bytes_max` of them but at least one; `b""` at the end.

        Raises:
            VerificationError: data or outboard do not match the hash. All good items before the
                bad one were handed out by then; nothing bad was.
            OSError: reading failed.
        """
        try:
            return self._encoder.next(bytes_max)
        except pybao.EncodeError as error:
            detail = "data or outboard end early" if error.kind == "size_mismatch" else ""
            raise VerificationError(self._hash, _chunk_of(error), detail) from error


class BlobDecoder:
    """Takes apart the encoding of ranges of one blob, whose size header was read before.

    Feed it bytes as they come; verified data and pairs are written to descriptors at their places,
    or wait to be taken. Only one item (16 KiB) waits unverified.
    """

    def __init__(
        self,
        hash: Hash,
        size: int,
        ranges: ChunkRanges,
        *,
        data_fd: int | None = None,
        outboard_fd: int | None = None,
    ) -> None:
        self._hash = hash
        self._decoder = pybao.Decoder(
            hash, ranges.boundaries, size=size, data_fd=data_fd, outboard_fd=outboard_fd
        )

    def feed(self, data: bytes) -> None:
        """Take bytes; what follows the end of the encoding waits in `take_unused`.

        Raises:
            VerificationError: an item does not match; what came before it stays proven.
            OSError: writing failed.
        """
        try:
            self._decoder.feed(data)
        except pybao.DecodeError as error:
            self._raise(error)

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            EncodingEndedError: more was due.
        """
        try:
            self._decoder.finish()
        except pybao.DecodeError as error:
            self._raise(error)

    def _raise(self, error: pybao.DecodeError) -> Never:
        chunk = _chunk_of(error)
        match error.kind:
            case "parent_hash_mismatch" | "leaf_hash_mismatch":
                raise VerificationError(self._hash, chunk) from error
            case "size_invalid":
                raise VerificationError(self._hash, chunk, "no blob has this size") from error
            case kind:
                is_within_item = kind == "truncated"
                raise EncodingEndedError(
                    self._hash, chunk, is_within_item=is_within_item
                ) from error

    def take_pieces(self) -> Sequence[tuple[int, bytes]]:
        """Verified data since the last call, ascending: (offset, bytes)."""
        return self._decoder.take_pieces()

    def take_pairs(self) -> Sequence[tuple[int, bytes]]:
        """Verified pairs since the last call: (offset in the outboard, 64 bytes)."""
        return self._decoder.take_pairs()

    def take_unused(self) -> bytes:
        """Bytes fed beyond the end of the encoding, handed over once."""
        return self._decoder.take_unused()

    @property
    def is_done(self) -> bool:
        """Whether all that was asked for has come."""
        return self._decoder.is_done

    @property
    def size_proven(self) -> bool:
        """Whether the last chunk was verified, which binds the size to the hash."""
        return self._decoder.size_proven

    @property
    def proven(self) -> ChunkRanges:
        """Chunks verified (and, with a descriptor, written) so far."""
        return ChunkRanges(self._decoder.proven)

    @property
    def remaining(self) -> int:
        """Bytes still missing to the end of the encoding."""
        return self._decoder.remaining or 0


def _chunk_of(error: pybao.DecodeError | pybao.EncodeError) -> int | None:
    """The first chunk under the tree node, or of the leaf, that the error names."""
    if error.node is None:
        return error.chunk
    # A node's number is one below the chunk where its right half starts, and it reaches as far
    # to both sides as the lowest set bit of that chunk tells.
    middle = error.node + 1
    return middle - (middle & -middle)
