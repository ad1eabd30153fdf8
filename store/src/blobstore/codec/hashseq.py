"""A blob that is read as hashes back to back: the root of a collection, or of any set of blobs.

Nothing in the bytes marks a blob as a hash seq; who names it says so (see `BlobFormat`). Its
length is a multiple of 32, and it may be empty. Children are never followed further.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, overload

from blobstore.codec.hash import HASH_SIZE, Hash

HASH_SEQ_SIZE_MAX = 64 * 1024 * 1024
"""Bytes of the largest hash seq that we make or take from a peer: two million children."""


class HashSeq(Sequence[Hash]):
    """An immutable sequence of hashes over its bytes: 32 for each.

    `HashSeq(hashes)` joins hashes; `HashSeq.from_bytes(data)` reads a blob.
    """

    __slots__ = ("_data",)
    _data: bytes

    def __init__(self, hashes: Iterable[Hash] = ()) -> None:
        self._data = b"".join(hashes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a blob as hashes.

        Raises:
            ValueError: the length is not a multiple of 32.
        """
        if len(data) % HASH_SIZE:
            raise ValueError(f"a hash seq has a multiple of 32 bytes, not {len(data)}")
        seq = cls.__new__(cls)
        seq._data = bytes(data)
        return seq

    def __bytes__(self) -> bytes:
        return self._data

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return len(self._data)

    def __len__(self) -> int:
        return len(self._data) // HASH_SIZE

    @overload
    def __getitem__(self, index: int) -> Hash: ...
    @overload
    def __getitem__(self, index: slice) -> HashSeq: ...
    def __getitem__(self, index: int | slice) -> Hash | HashSeq:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return HashSeq.from_bytes(self._data[start * HASH_SIZE : stop * HASH_SIZE])
            return HashSeq(self[i] for i in range(start, stop, step))
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError("no such child in this hash seq")
        return Hash(self._data[index * HASH_SIZE : (index + 1) * HASH_SIZE])

    def __iter__(self) -> Iterator[Hash]:
        data = self._data
        # Each slice has the size of a hash: this looks at that no more.
        new = bytes.__new__
        for offset in range(0, len(data), HASH_SIZE):
            yield new(Hash, data[offset : offset + HASH_SIZE])

    def find(self, hash: bytes, start: int = 0) -> int:
        """Index of the first child from `start` on that is `hash`, or -1."""
        if len(hash) != HASH_SIZE:
            return -1
        offset = self._data.find(hash, start * HASH_SIZE)
        while offset >= 0 and offset % HASH_SIZE:
            # The same 32 bytes may lie across two children.
            offset = self._data.find(hash, offset + 1)
        return offset // HASH_SIZE if offset >= 0 else -1

    def __contains__(self, value: object) -> bool:
        return isinstance(value, bytes) and self.find(value) >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashSeq) and self._data == other._data

    def __hash__(self) -> int:
        return hash(self._data)

    def __repr__(self) -> str:
        return f"HashSeq({len(self)} hashes)"
