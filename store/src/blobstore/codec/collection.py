"""Names beside a hash seq: how a folder or a set of files becomes one blob to ask for.

A collection is a hash seq whose first child is the metadata blob, which holds the names of the
other children in their order. Names are free text here: `/`, `..`, duplicates and NUL all pass,
since a collection need not be a folder. Whoever makes files of them checks them first.

Metadata: `CollectionV0.` (13 bytes), the number of names, then each name with its length in
front; numbers are varints, names UTF-8.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Self

from blobstore.codec.hashseq import HASH_SEQ_SIZE_MAX, HashSeq
from blobstore.codec.varint import decode_varint, encode_varint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blobstore.codec.hash import Hash

COLLECTION_META_SIZE_MAX = 256 * 1024 * 1024
"""Bytes of the largest metadata blob that we make or take from a peer."""

COLLECTION_HEADER = b"CollectionV0."

_SHORT = tuple(map(encode_varint, range(256)))
"""Lengths of most names."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Named blobs, in order."""

    entries: tuple[tuple[str, Hash], ...] = ()
    """Name and hash of each, without the metadata blob."""

    def encode_meta(self) -> bytes:
        """The metadata blob.

        Raises:
            ValueError: a name is not text that UTF-8 can hold (a lone surrogate), or all names
                together are over `COLLECTION_META_SIZE_MAX`.
        """
        names: list[bytes] = []
        for name, _ in self.entries:
            try:
                names.append(name.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"name {name!r} cannot be written as UTF-8") from error
        return encode_names(len(names), names)[0]

    def hash_seq(self, meta_hash: Hash) -> HashSeq:
        """The root blob; `meta_hash` is the hash of `encode_meta()`.

        Raises:
            ValueError: more entries than `HASH_SEQ_SIZE_MAX` holds.
        """
        seq = HashSeq((meta_hash, *(hash for _, hash in self.entries)))
        if seq.size > HASH_SEQ_SIZE_MAX:
            raise ValueError(f"a collection of {len(self.entries)} entries is too large")
        return seq

    @classmethod
    def decode(cls, meta: bytes, hash_seq: HashSeq) -> Self:
        """Join names and hashes. The caller has verified that `meta` is `hash_seq[0]`.

        Raises:
            ValueError: not the metadata of a collection with as many names as `hash_seq` has
                children beside it; bytes after the last name are refused too.
        """
        names = _decode_names(meta, len(hash_seq) - 1)
        hashes = iter(hash_seq)
        next(hashes)
        return cls(tuple(zip(names, hashes, strict=True)))


def encode_names(count: int, names: Iterable[bytes]) -> tuple[bytes, array[int]]:
    """The metadata blob for `count` names in UTF-8, and where the length before each begins.

    Raises:
        ValueError: all names together are over `COLLECTION_META_SIZE_MAX`.
    """
    # Hands its bytes over without a copy, unlike a bytearray.
    meta = BytesIO()
    write = meta.write
    at = write(COLLECTION_HEADER + encode_varint(count))
    offsets = array("Q")
    for name in names:
        length = len(name)
        offsets.append(at)
        at += write((_SHORT[length] if length < len(_SHORT) else encode_varint(length)) + name)
        if at > COLLECTION_META_SIZE_MAX:
            raise ValueError(f"the names of a collection are too long: over {at} bytes")
    return meta.getvalue(), offsets


def _decode_names(meta: bytes, count_due: int) -> list[str]:
    if count_due < 0:
        raise ValueError("a collection has a metadata blob, this hash seq has no child at all")
    if not meta.startswith(COLLECTION_HEADER):
        raise ValueError("not the metadata of a collection")
    names: list[str] = []
    try:
        count, offset = decode_varint(meta, len(COLLECTION_HEADER))
        if count != count_due:
            raise ValueError(f"a collection has {count_due} files but {count} names")
        for _ in range(count):
            size, offset = decode_varint(meta, offset)
            if size > len(meta) - offset:
                raise ValueError("the metadata of a collection ends within a name")
            names.append(meta[offset : offset + size].decode())
            offset += size
    except IndexError:
        raise ValueError("the metadata of a collection ends early") from None
    except UnicodeDecodeError as error:
        raise ValueError("a name in a collection is not UTF-8") from error
    if offset != len(meta):
        raise ValueError(f"{len(meta) - offset} bytes too many in the metadata of a collection")
    return names
