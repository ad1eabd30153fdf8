"""The collection that imported files become: names and hashes joined, nothing kept by file.

A million files are some tens of MiB here: the two blobs of the collection and a few numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, cast, overload

from blobstore.api import FileList, ImportedFile
from blobstore.codec.collection import encode_names
from blobstore.codec.hash import HASH_SIZE, Hash
from blobstore.codec.varint import decode_varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobstore.walking import Walk


class ImportedFiles(FileList):
    """The files of a collection in its order, each made when it is asked for.

    Equal to any sequence of the same files.
    """

    def __init__(self, found: Walk) -> None:
        """Raises ValueError: the names are too long for a collection."""
        self._sizes = array("Q")
        # Hands its bytes over without a copy, unlike a bytearray.
        hashes = BytesIO()
        for folder, start, end in found.runs():
            if end - start == folder.count:
                hashes.write(folder.hashes)
                self._sizes.extend(folder.sizes())
            elif end > start:
                hashes.write(folder.hashes[start * HASH_SIZE : end * HASH_SIZE])
                self._sizes.extend(folder.sizes()[start:end])
        self._hashes = hashes.getvalue()
        del hashes
        self._meta, self._offsets = encode_names(len(self._sizes), found.names())

    @property
    def meta(self) -> bytes:
        """The metadata blob of the collection."""
        return self._meta

    @property
    def hashes(self) -> bytes:
        """The hashes of all files, back to back."""
        return self._hashes

    @property
    def size(self) -> int:
        return sum(self._sizes)

    def names(self) -> Iterator[str]:
        meta = self._meta
        for offset in self._offsets:
            length, start = decode_varint(meta, offset)
            yield meta[start : start + length].decode()

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> ImportedFile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ImportedFile, ...]: ...
    def __getitem__(self, index: int | slice) -> ImportedFile | tuple[ImportedFile, ...]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        index = range(len(self))[index]
        length, start = decode_varint(self._meta, self._offsets[index])
        name = self._meta[start : start + length].decode()
        hash = Hash(self._hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE])
        return ImportedFile(name, hash, self._sizes[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        files = cast("Sequence[object]", other)
        return len(self) == len(files) and all(
            mine == theirs for mine, theirs in zip(self, files, strict=True)
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType] - as of any sequence that may be long

    def __repr__(self) -> str:
        return f"<{len(self)} files of {self.size} bytes>"
