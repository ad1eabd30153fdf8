"""Names beside a hash seq: how a folder or a set of files becomes one blob to ask for.

A collection is a hash seq whose first child is the metadata blob, which holds the names of the
other children in their order. Names are free text here: `/`, `..`, duplicates and NUL all pass,
since a collection need not be a folder. Whoever makes files of them checks them first.

Metadata: `CollectionV0.` (13 bytes), the number of names, then each name with its length in
front; numbers are varints, names UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from blobstore.codec.hashseq import HASH_SEQ_SIZE_MAX, HashSeq
from blobstore.codec.names import Names

if TYPE_CHECKING:
    from blobstore.codec.hash import Hash


@dataclass(frozen=True, slots=True)
class Collection:
    """Named blobs, in order."""

    entries: tuple[tuple[str, Hash], ...] = ()
    """Name and hash of each, without the metadata blob."""

    def encode_meta(self) -> bytes:
        """The metadata blob.

        Raises:
            ValueError: a name is not text that UTF-8 can hold (a lone surrogate), or all names
                together are over `names.COLLECTION_META_SIZE_MAX`.
        """
        names: list[bytes] = []
        for name, _ in self.entries:
            try:
                names.append(name.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"name {name!r} cannot be written as UTF-8") from error
        return Names.encode(len(names), names).meta

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
        names = Names.decode(meta, len(hash_seq) - 1)
        hashes = iter(hash_seq)
        next(hashes)
        return cls(tuple(zip(names, hashes, strict=True)))
