"""The names of a collection, kept as the bytes that they came in.

A million names as text take hundreds of megabytes; here each takes its bytes and eight more, and
becomes text when it is asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Self, overload

from blobstore.codec.varint import decode_varint, encode_varint

COLLECTION_META_SIZE_MAX = 256 * 1024 * 1024
"""Bytes of the largest metadata blob that we make or take from a peer."""

COLLECTION_HEADER = b"CollectionV0."

_SHORT = tuple(map(encode_varint, range(256)))
"""Lengths of most names."""


class Names(Sequence[str]):
    """An immutable sequence of names over the metadata blob of a collection, `meta`."""

    __slots__ = ("_ends", "_starts", "meta")

    def __init__(self, meta: bytes, starts: array[int], ends: array[int]) -> None:
        """`meta` holds name i, known as UTF-8, from `starts[i]` to `ends[i]`."""
        self.meta = meta
        self._starts = starts
        self._ends = ends

    @classmethod
    def encode(cls, count: int, names: Iterable[bytes]) -> Self:
        """Make the metadata blob, `meta`, for `count` names in UTF-8.

        Raises:
            ValueError: all names together are over `COLLECTION_META_SIZE_MAX`.
        """
        # Hands its bytes over without a copy, unlike a bytearray.
        meta = BytesIO()
        write = meta.write
        at = write(COLLECTION_HEADER + encode_varint(count))
        starts, ends = array("I"), array("I")
        for name in names:
            length = len(name)
            at += write((_SHORT[length] if length < len(_SHORT) else encode_varint(length)) + name)
            starts.append(at - length)
            ends.append(at)
            if at > COLLECTION_META_SIZE_MAX:
                raise ValueError(f"the names of a collection are too long: over {at} bytes")
        return cls(meta.getvalue(), starts, ends)

    @classmethod
    def decode(cls, meta: bytes, count_due: int) -> Self:
        """Read the metadata blob of a collection that has `count_due` children beside it.

        Raises:
            ValueError: it is not that of a collection with as many names; bytes after the last
                name are refused too.
        """
        if count_due < 0:
            raise ValueError("a collection has a metadata blob, this hash seq has no child at all")
        if not meta.startswith(COLLECTION_HEADER):
            raise ValueError("not the metadata of a collection")
        starts, ends = array("I"), array("I")
        try:
            count, offset = decode_varint(meta, len(COLLECTION_HEADER))
            if count != count_due:
                raise ValueError(f"a collection has {count_due} files but {count} names")
            for _ in range(count):
                size = meta[offset]
                if size < 0x80:
                    # Most names are short, and most of the time goes into this loop.
                    offset += 1
                else:
                    size, offset = decode_varint(meta, offset)
                end = offset + size
                if end > len(meta):
                    raise ValueError("the metadata of a collection ends within a name")
                meta[offset:end].decode()
                starts.append(offset)
                ends.append(end)
                offset = end
        except IndexError:
            raise ValueError("the metadata of a collection ends early") from None
        except UnicodeDecodeError as error:
            raise ValueError("a name in a collection is not UTF-8") from error
        if offset != len(meta):
            raise ValueError(f"{len(meta) - offset} bytes too many in the metadata of a collection")
        return cls(meta, starts, ends)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return Names(self.meta, self._starts[index], self._ends[index])
        return self.meta[self._starts[index] : self._ends[index]].decode()

    def __iter__(self) -> Iterator[str]:
        meta = self.meta
        for start, end in zip(self._starts, self._ends, strict=True):
            yield meta[start:end].decode()

    def __repr__(self) -> str:
        return f"Names({len(self)} names)"
